//! What is loaded: Homing's conversations, or the plain topics of any other broker.

use std::net::SocketAddr;

use anyhow::Context as _;

use crate::{
    args::{TargetArgs, TargetKind},
    homing::Homing,
    payload::Run,
    process::Server,
    wire::Login,
};

#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Part of every name, so that runs do not meet.
    pub(crate) run: Run,
    pub(crate) server: Server,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Homing(Homing),
    Plain {
        username: Option<String>,
        password: Option<String>,
    },
}

/// Where to send so that a receiver gets it, and as what.
#[derive(Clone, Debug)]
pub(crate) struct Topics {
    pub(crate) publish: String,
    pub(crate) deliver: String,
    pub(crate) filter: String,
}

impl Target {
    pub(crate) async fn open(args: &TargetArgs) -> anyhow::Result<Self> {
        let mut pids = args.server_pids.clone();
        let (mqtt, kind) = match args.target {
            TargetKind::Homing => {
                let (homing, running) = Homing::open(args)?;
                pids.extend(running.pids);
                (running.mqtt, Kind::Homing(homing))
            }
            TargetKind::Plain => {
                let mqtt = args
                    .mqtt
                    .clone()
                    .unwrap_or_else(|| "127.0.0.1:1883".to_owned());
                let (username, password) = (args.username.clone(), args.password.clone());
                (mqtt, Kind::Plain { username, password })
            }
        };
        pids.sort_unstable();
        pids.dedup();
        let mut addresses = tokio::net::lookup_host(&mqtt)
            .await
            .with_context(|| format!("{mqtt} is no address; write HOST:PORT"))?;
        let address = addresses
            .next()
            .with_context(|| format!("{mqtt} has no address"))?;
        let mut run = Run::default();
        run.copy_from_slice(format!("{:08x}", rand::random::<u32>()).as_bytes());
        Ok(Self {
            address,
            run,
            server: Server(pids),
            kind,
        })
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Homing(_) => "homing",
            Kind::Plain { .. } => "plain",
        }
    }

    pub(crate) fn homing(&self) -> Option<&Homing> {
        match &self.kind {
            Kind::Homing(homing) => Some(homing),
            Kind::Plain { .. } => None,
        }
    }

    pub(crate) fn run_name(&self) -> String {
        String::from_utf8_lossy(&self.run).into_owned()
    }

    /// The user of this run that is called `name`, who is also the name of its device.
    pub(crate) fn user(&self, name: &str) -> String {
        format!("load-{}-{name}", self.run_name())
    }

    pub(crate) fn login(&self, name: &str) -> anyhow::Result<Login> {
        let user = self.user(name);
        let (username, password) = match &self.kind {
            Kind::Homing(homing) => (Some(user.clone()), Some(homing.token(&user)?)),
            Kind::Plain { username, password } => (username.clone(), password.clone()),
        };
        Ok(Login {
            client_id: user,
            username,
            password,
            keep_alive_seconds: 0,
        })
    }

    /// Makes a place where the users `names` can talk.
    pub(crate) async fn conversation(
        &self,
        place: &str,
        names: &[String],
    ) -> anyhow::Result<Topics> {
        match &self.kind {
            Kind::Homing(homing) => {
                let users: Vec<String> = names.iter().map(|name| self.user(name)).collect();
                let id = homing.create_conversation(&users).await?;
                Ok(Topics {
                    publish: format!("c/{id}/send"),
                    deliver: format!("c/{id}/messages"),
                    filter: "c/+/messages".to_owned(),
                })
            }
            Kind::Plain { .. } => {
                let topic = format!("load/{}/{place}", self.run_name());
                Ok(Topics {
                    publish: topic.clone(),
                    deliver: topic.clone(),
                    filter: topic,
                })
            }
        }
    }

    /// What a device without conversations subscribes to.
    pub(crate) fn quiet_filter(&self, name: &str) -> String {
        match self.kind {
            Kind::Homing(_) => "c/#".to_owned(),
            Kind::Plain { .. } => format!("load/{}/{name}", self.run_name()),
        }
    }

    /// Where a sender is told that a publish was refused.
    pub(crate) fn refusals_filter(&self) -> Option<&'static str> {
        matches!(self.kind, Kind::Homing(_)).then_some("me/device")
    }
}
