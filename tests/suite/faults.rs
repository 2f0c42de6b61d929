//! A network that breaks and heals: a TCP proxy between the broker and Postgres.

use std::net::SocketAddr;

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// Forwards connections while it is whole; ends with this value.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    is_whole: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (is_whole, watched) = watch::channel(true);
        let mut tasks = JoinSet::new();
        tasks.spawn(forward(listener, target, watched));
        Self {
            address,
            is_whole,
            _tasks: tasks,
        }
    }

    /// Cuts every connection, and every new one at once.
    pub(crate) fn cut(&self) {
        self.is_whole.send_replace(false);
    }

    pub(crate) fn heal(&self) {
        self.is_whole.send_replace(true);
    }
}

async fn forward(listener: TcpListener, target: SocketAddr, is_whole: watch::Receiver<bool>) {
    let mut connections = JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut is_whole = is_whole.clone();
        connections.spawn(async move {
            if !*is_whole.borrow_and_update() {
                return;
            }
            let mut far = TcpStream::connect(target).await.unwrap();
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                _ = is_whole.changed() => {}
            }
        });
    }
}
