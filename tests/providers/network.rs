//! Networks between a client and the providers.

use std::{collections::HashMap, net::SocketAddr};

use tokio::{
    io::{
        AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional,
    },
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Forwards everything, until it swallows everything: connections stay open, bytes are taken,
/// nothing arrives, nothing comes back. What was open then stays dead for good.
pub(crate) struct BlackHole {
    pub(crate) address: SocketAddr,
    swallows: watch::Sender<bool>,
    bytes: watch::Receiver<usize>,
    _tasks: JoinSet<()>,
}

impl BlackHole {
    pub(crate) async fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (swallows, watched) = watch::channel(false);
        let (swallowed, bytes) = watch::channel(0);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                connections.spawn(forward(near, target, watched.clone(), swallowed.clone()));
            }
        });
        Self {
            address,
            swallows,
            bytes,
            _tasks: tasks,
        }
    }

    pub(crate) fn swallow(&self) {
        self.swallows.send_replace(true);
    }

    /// Waits until something has been swallowed.
    pub(crate) async fn swallowed(&self) {
        let mut bytes = self.bytes.clone();
        bytes.wait_for(|bytes| *bytes > 0).await.unwrap();
    }

    /// New connections go through again.
    pub(crate) fn heal(&self) {
        self.swallows.send_replace(false);
    }
}

async fn forward(
    mut near: TcpStream,
    target: SocketAddr,
    mut swallows: watch::Receiver<bool>,
    swallowed: watch::Sender<usize>,
) {
    // Kept: the other side does not notice either.
    let mut beyond = None;
    if !*swallows.borrow_and_update() {
        let far = beyond.insert(TcpStream::connect(target).await.unwrap());
        tokio::select! {
            _ = copy_bidirectional(&mut near, far) => return,
            _ = swallows.changed() => {}
        }
    }
    // Takes what comes until the other side gives up.
    let mut taken = [0; 4096];
    while let Ok(bytes @ 1..) = near.read(&mut taken).await {
        swallowed.send_modify(|sum| *sum += bytes);
    }
    drop(beyond);
}

/// An HTTP proxy that leads the names of providers to the fakes, and nowhere else.
pub(crate) struct ConnectProxy {
    pub(crate) address: SocketAddr,
    _tasks: JoinSet<()>,
}

impl ConnectProxy {
    /// `ways`: as in `fcm.googleapis.com:443`.
    pub(crate) async fn start(ways: &[(&str, SocketAddr)]) -> Self {
        let ways: HashMap<String, SocketAddr> = ways
            .iter()
            .map(|(name, address)| ((*name).to_owned(), *address))
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let ways = ways.clone();
                connections.spawn(async move { _ = tunnel(near, &ways).await });
            }
        });
        Self {
            address,
            _tasks: tasks,
        }
    }
}

async fn tunnel(near: TcpStream, ways: &HashMap<String, SocketAddr>) -> std::io::Result<()> {
    let mut near = BufReader::new(near);
    let mut request = String::new();
    near.read_line(&mut request).await?;
    let mut header = String::from("-");
    while !header.trim_end().is_empty() {
        header.clear();
        near.read_line(&mut header).await?;
    }
    let mut words = request.split(' ');
    let target = match (words.next(), words.next()) {
        (Some("CONNECT"), Some(name)) => ways.get(name),
        _ => None,
    };
    let Some(target) = target else {
        return near
            .write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n")
            .await;
    };
    let mut far = TcpStream::connect(target).await?;
    near.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
        .await?;
    copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}
