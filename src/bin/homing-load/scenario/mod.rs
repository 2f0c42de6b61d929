//! What can be measured: one file each.

pub(crate) mod fanout;
pub(crate) mod idle;
pub(crate) mod offline;
pub(crate) mod pairs;
pub(crate) mod push;
pub(crate) mod receipts;
pub(crate) mod storm;

use tokio::task::JoinSet;

use crate::{
    args::Receiving,
    client::{self, Client, ClientError},
    clock::Nanos,
    traffic::{Run, prepare},
    wire::{Login, Session},
};

/// Makes a persistent session with one subscription, and leaves.
async fn leave_session(run: &Run, login: &Login, filter: &str) -> anyhow::Result<()> {
    let address = run.target.address;
    let mut client = Client::connect(address, login, Session::Persistent, 0).await?;
    client.subscribe(filter).await?;
    client.disconnect().await?;
    Ok(())
}

/// Comes back to such a session; says how long the CONNACK took.
async fn come_back(run: &Run, login: &Login, bytes: usize) -> Result<(Client, Nanos), ClientError> {
    let began = run.clock.now();
    let client = Client::connect(run.target.address, login, Session::Persistent, bytes).await?;
    Ok((client, run.clock.now() - began))
}

/// Ends the sessions, so that the server need not keep them after the run.
async fn forget(run: &Run, logins: &[Login]) -> anyhow::Result<()> {
    let address = run.target.address;
    prepare(logins.len(), async |number| {
        Ok(client::forget(address, &logins[number]).await?)
    })
    .await
    .map(drop)
}

impl Receiving {
    fn session(self) -> Session {
        if self.persistent {
            Session::Persistent
        } else {
            Session::Clean
        }
    }

    /// Ends the sessions that outlive the receivers called `names`.
    async fn end(self, run: &Run, names: &[String]) -> anyhow::Result<()> {
        if !self.persistent {
            return Ok(());
        }
        let logins: Result<Vec<Login>, _> =
            names.iter().map(|name| run.target.login(name)).collect();
        forget(run, &logins?).await
    }
}

/// What all tasks returned, in the order in which they ended.
async fn join_all<T: 'static>(mut tasks: JoinSet<T>) -> Vec<T> {
    let mut all = Vec::with_capacity(tasks.len());
    while let Some(ended) = tasks.join_next().await {
        all.push(ended.expect("these tasks neither panic nor are cancelled"));
    }
    all
}
