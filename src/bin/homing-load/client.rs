//! One connection to the broker: a socket, the packets read from it, the bytes to be written.

use std::{io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    inbox::{Inbox, Malformed, Packet},
    wire::{self, Login, Session},
};

/// From the first SYN to the CONNACK, in a storm too.
const CONNECT_TIMEOUT: Duration = Duration::from_mins(2);
const SUBACK_FAILURE: u8 = 0x80;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("no MQTT server at {address}; is it running?")]
    Unreachable {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the server let {client_id} wait {} s for its CONNACK", CONNECT_TIMEOUT.as_secs())]
    Silent { client_id: String },
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    #[error("the server closed the connection")]
    Closed,
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the server refused {client_id} with CONNACK code {code}")]
    ConnectRefused { client_id: String, code: u8 },
    #[error("the server refused the subscription to {filter}")]
    SubscriptionRefused { filter: String },
    #[error("the server answered something else than was asked")]
    Unexpected,
}

impl ClientError {
    /// The server said no, and would say it again.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::ConnectRefused { .. } | Self::SubscriptionRefused { .. }
        )
    }
}

#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    pub(crate) inbox: Inbox,
    /// Written by [`Self::flush`].
    pub(crate) out: Vec<u8>,
    /// CONNACK: the server still knew this session.
    pub(crate) is_session_present: bool,
}

impl Client {
    /// Connects and waits for the CONNACK; reads of up to `buffer_bytes`.
    pub(crate) async fn connect(
        address: SocketAddr,
        login: &Login,
        session: Session,
        buffer_bytes: usize,
    ) -> Result<Self, ClientError> {
        timeout(
            CONNECT_TIMEOUT,
            Self::open(address, login, session, buffer_bytes),
        )
        .await
        .map_err(|_| ClientError::Silent {
            client_id: login.client_id.clone(),
        })?
    }

    async fn open(
        address: SocketAddr,
        login: &Login,
        session: Session,
        buffer_bytes: usize,
    ) -> Result<Self, ClientError> {
        let unreachable = |source| ClientError::Unreachable { address, source };
        let stream = TcpStream::connect(address).await.map_err(unreachable)?;
        stream.set_nodelay(true)?;
        let inbox = Inbox::with_capacity(buffer_bytes);
        let mut client = Self {
            stream,
            inbox,
            out: Vec::new(),
            is_session_present: false,
        };
        wire::connect(&mut client.out, login, session);
        client.flush().await?;
        client.out = Vec::new(); // tokens are long, and idle connections many
        match client.packet().await? {
            Packet::Connack {
                code: 0,
                is_session_present,
            } => {
                client.is_session_present = is_session_present;
            }
            Packet::Connack { code, .. } => {
                let client_id = login.client_id.clone();
                return Err(ClientError::ConnectRefused { client_id, code });
            }
            _ => return Err(ClientError::Unexpected),
        }
        Ok(client)
    }

    /// Subscribes with QoS 1, before anything can be delivered.
    pub(crate) async fn subscribe(&mut self, filter: &str) -> Result<(), ClientError> {
        wire::subscribe(&mut self.out, 1, filter);
        self.flush().await?;
        match self.packet().await? {
            Packet::Suback { codes: [code] } if *code < SUBACK_FAILURE => Ok(()),
            Packet::Suback { .. } => Err(ClientError::SubscriptionRefused {
                filter: filter.to_owned(),
            }),
            _ => Err(ClientError::Unexpected),
        }
    }

    /// Waits for bytes and reads them once. Nothing is lost if it is dropped.
    pub(crate) async fn fill(&mut self) -> Result<(), ClientError> {
        match self.stream.read(self.inbox.room()).await? {
            0 => Err(ClientError::Closed),
            count => {
                self.inbox.filled(count);
                Ok(())
            }
        }
    }

    /// Writes what is in [`Self::out`].
    pub(crate) async fn flush(&mut self) -> Result<(), ClientError> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out).await?;
            self.out.clear();
        }
        Ok(())
    }

    /// Says good-bye: the session, if it is persistent, stays.
    pub(crate) async fn disconnect(mut self) -> Result<(), ClientError> {
        self.out.extend_from_slice(&wire::DISCONNECT);
        self.flush().await?;
        self.stream.shutdown().await?;
        Ok(())
    }

    /// The next packet, waiting for it.
    async fn packet(&mut self) -> Result<Packet<'_>, ClientError> {
        while !self.inbox.has_packet()? {
            self.fill().await?;
        }
        self.inbox.take()?.ok_or(ClientError::Unexpected)
    }
}

/// Ends a persistent session and all that waits in it.
pub(crate) async fn forget(address: SocketAddr, login: &Login) -> Result<(), ClientError> {
    Client::connect(address, login, Session::Clean, 0)
        .await?
        .disconnect()
        .await
}
