//! Connections of HTTP that end although the client does nothing for it.
//!
//! ```text
//!   takes nothing of what it is sent ── for `taking`, once the server stops for `stopping` ──▶ cut
//!   the server stops ── for twice `stopping` ──▶ cut, whatever it does
//! ```
//!
//! Above this nobody sees such a client: the body of a response is not asked for more while
//! there is no room for it.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::serve::Listener;
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

/// How long clients are waited for.
#[derive(Clone, Debug)]
pub struct Patience {
    /// One that takes nothing for so long is cut.
    pub taking: Duration,
    /// The same once the server stops; after twice that time everybody is.
    pub stopping: Duration,
    /// Cancelled when the server stops.
    pub stop: CancellationToken,
}

impl Patience {
    async fn stalled(self) {
        let stopped = async {
            self.stop.cancelled().await;
            sleep(self.stopping).await;
        };
        tokio::select! {
            () = sleep(self.taking) => {}
            () = stopped => {}
        }
    }

    async fn stopped(self) {
        self.stop.cancelled().await;
        sleep(self.stopping * 2).await;
    }
}

/// Accepts connections that end.
#[derive(Debug)]
pub struct PatientListener {
    listener: TcpListener,
    patience: Patience,
}

impl PatientListener {
    #[must_use]
    pub fn new(listener: TcpListener, patience: Patience) -> Self {
        Self { listener, patience }
    }
}

impl Listener for PatientListener {
    type Io = Patient<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (Patient::new(stream, self.patience.clone()), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection, and how long it may last without moving.
pub struct Patient<S> {
    stream: S,
    patience: Patience,
    /// Runs while the client takes nothing.
    stalled: Option<BoxFuture<'static, ()>>,
    stopped: BoxFuture<'static, ()>,
    is_over: bool,
}

impl<S> Patient<S> {
    fn new(stream: S, patience: Patience) -> Self {
        let stopped = patience.clone().stopped().boxed();
        Self {
            stream,
            patience,
            stalled: None,
            stopped,
            is_over: false,
        }
    }

    /// What to say of something that has not moved.
    fn wait<T>(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        let stalled = self.stalled.as_mut();
        self.is_over = self.is_over
            || stalled.is_some_and(|stalled| stalled.poll_unpin(cx).is_ready())
            || self.stopped.poll_unpin(cx).is_ready();
        if self.is_over {
            Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
        } else {
            Poll::Pending
        }
    }

    fn written(
        &mut self,
        written: Poll<io::Result<usize>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        if self.stalled.is_none() {
            self.stalled = Some(self.patience.clone().stalled().boxed());
        }
        self.wait(cx)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.stream).poll_read(cx, into) {
            Poll::Pending => self.wait(cx),
            ready @ Poll::Ready(_) => ready,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.written(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        time::Instant,
    };

    use super::*;

    const TAKING: Duration = Duration::from_mins(1);
    const STOPPING: Duration = Duration::from_secs(5);
    /// Who is not cut until then never is.
    const FOREVER: Duration = Duration::from_hours(24);

    /// A connection that has room for four bytes, its client, and the stop.
    fn connection() -> (Patient<DuplexStream>, DuplexStream, CancellationToken) {
        let (client, stream) = duplex(4);
        let stop = CancellationToken::new();
        let patience = Patience {
            taking: TAKING,
            stopping: STOPPING,
            stop: stop.clone(),
        };
        (Patient::new(stream, patience), client, stop)
    }

    /// After how long the connection was cut.
    async fn cut(io: impl Future<Output = io::Result<()>>) -> Duration {
        let began = Instant::now();
        let ended = tokio::time::timeout(FOREVER, io).await;
        let error = ended.expect("it should be cut").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // The clock of a paused runtime stops at the next millisecond.
        Duration::from_secs(began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_cut() {
        let (mut connection, _client, _stop) = connection();
        assert_eq!(cut(connection.write_all(b"12345")).await, TAKING);
        // And stays so.
        connection.write_all(b"6").await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_of_several_parts_is_cut() {
        let (mut connection, _client, _stop) = connection();
        let parts = [IoSlice::new(b"12"), IoSlice::new(b"34")];
        assert_eq!(connection.write_vectored(&parts).await.unwrap(), 4);
        let more = async { connection.write_vectored(&parts).await.map(drop) };
        assert_eq!(cut(more).await, TAKING);
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_something_now_and_then_goes_on() {
        let (mut connection, mut client, _stop) = connection();
        let takes = async {
            for _ in 0..10 {
                sleep(TAKING / 2).await;
                client.read_u8().await.unwrap();
            }
        };
        // Who is cut would wait for ever.
        let writes = async { connection.write_all(b"12345678901234").await.unwrap() };
        tokio::join!(writes, takes);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_stop_there_is_less_patience() {
        let (mut connection, _client, stop) = connection();
        stop.cancel();
        assert_eq!(cut(connection.write_all(b"12345")).await, STOPPING);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_only_waits_is_cut_when_the_server_stops() {
        let (mut connection, _client, stop) = connection();
        let waits = async { connection.read_u8().await.map(drop) };
        let stops = async {
            sleep(TAKING * 9).await;
            stop.cancel();
        };
        let (after, ()) = tokio::join!(cut(waits), stops);
        assert_eq!(after, TAKING * 9 + STOPPING * 2);
    }
}
