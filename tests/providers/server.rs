//! One port of a provider: TLS, HTTP, faults, and what the service behind it says.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    answer::{Answer, Call, Judged},
    apns,
    fake::World,
    fcm, oauth,
    script::{Fault, Refusal},
    seen::{Accepted, Answered, Kind},
    web,
};

/// More than any provider takes.
const BODY_BYTES_MAX: usize = 1 << 20;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A port.
pub(super) struct Server {
    pub(super) world: Arc<World>,
    pub(super) kind: Kind,
    pub(super) acceptor: TlsAcceptor,
    pub(super) streams_max: Option<u32>,
}

/// What a connection is to do next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Course {
    On,
    GoAway,
    Cut,
}

struct Connection {
    server: Arc<Server>,
    number: usize,
    streams: AtomicUsize,
    course: watch::Sender<Course>,
}

impl Server {
    pub(super) async fn run(self: Arc<Self>, listener: TcpListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (stream, _) = accepted.unwrap();
                    connections.spawn(Arc::clone(&self).serve(stream));
                }
                Some(ended) = connections.join_next() => ended.unwrap(),
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let Ok(stream) = self.acceptor.accept(stream).await else {
            return;
        };
        let mut number = 0;
        self.world.record.write(|seen| {
            *seen.connections.entry(self.kind).or_default() += 1;
            number = seen.connections.values().sum();
        });
        let (course, mut watched) = watch::channel(Course::On);
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http2().max_concurrent_streams(self.streams_max);
        let connection = Arc::new(Connection {
            number,
            streams: AtomicUsize::new(0),
            course,
            server: self,
        });
        let service = service_fn(move |request| Arc::clone(&connection).request(request));
        let mut serving = pin!(builder.serve_connection(TokioIo::new(stream), service));
        loop {
            tokio::select! {
                _ = serving.as_mut() => return,
                Ok(()) = watched.changed() => {}
            }
            match *watched.borrow_and_update() {
                Course::On => {}
                Course::GoAway => serving.as_mut().graceful_shutdown(),
                Course::Cut => return,
            }
        }
    }
}

/// A request at work; it may end by being dropped.
struct Stream<'a>(&'a AtomicUsize);

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    async fn request(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Failure> {
        let now = self.streams.fetch_add(1, Ordering::Relaxed) + 1;
        let _stream = Stream(&self.streams);
        let world = &self.server.world;
        world
            .record
            .write(|seen| seen.streams_max = seen.streams_max.max(now));

        let call = collect(request).await?;
        let kind = match self.server.kind {
            Kind::Fcm if call.path == oauth::PATH => Kind::OAuth,
            kind => kind,
        };
        world
            .record
            .write(|seen| *seen.arrived.entry(kind).or_default() += 1);
        let judged = match kind {
            Kind::Apns => apns::judge(world, &call),
            Kind::Fcm => fcm::judge(world, &call),
            Kind::OAuth => oauth::judge(world, &call),
            Kind::WebPush => web::judge(world, &call),
        };
        let answer = self.answer(kind, &call, judged).await?;
        Ok(answer.into_response(&world.clock.date()))
    }

    /// Lets happen what is scripted, if the request is good enough for it.
    async fn answer(&self, kind: Kind, call: &Call, judged: Judged) -> Result<Answer, Failure> {
        let world = &self.server.world;
        let payload = match &judged.verdict {
            Ok(payload) => payload.clone(),
            Err(refusal) => return Ok(self.refuse(kind, &judged, refusal)),
        };
        match world.scripts.next(kind, &judged.token) {
            Fault::Accept => {}
            Fault::Refuse(refusal) => return Ok(self.refuse(kind, &judged, &refusal)),
            Fault::Hold(gate) => gate.passed().await,
            Fault::HoldAndRefuse(gate, refusal) => {
                gate.passed().await;
                return Ok(self.refuse(kind, &judged, &refusal));
            }
            Fault::Delay(time) => tokio::time::sleep(time).await,
            Fault::GoAway => {
                self.course.send_replace(Course::GoAway);
            }
            Fault::Reset => {
                self.note(kind, &judged.token, 0, "reset");
                return Err(h2::Error::from(h2::Reason::INTERNAL_ERROR).into());
            }
            Fault::Cut => {
                self.note(kind, &judged.token, 0, "cut");
                self.course.send_replace(Course::Cut);
                std::future::pending::<()>().await;
            }
        }
        let answer = match kind {
            Kind::Apns => Answer::empty(200).with("apns-id", &judged.id),
            Kind::Fcm => fcm::accepted(&judged.id),
            Kind::OAuth => oauth::granted(world),
            Kind::WebPush => web::accepted(call, &judged.id),
        };
        if kind != Kind::OAuth {
            let accepted = Accepted {
                kind,
                token: judged.token.clone(),
                headers: call.header_map(),
                payload,
                body: call.body.to_vec(),
                id: judged.id,
                at_unix: world.clock.now_unix(),
                connection: self.number,
            };
            world.record.write(|seen| seen.accepted.push(accepted));
        }
        self.note(kind, &judged.token, answer.status, "");
        Ok(answer)
    }

    fn refuse(&self, kind: Kind, judged: &Judged, refusal: &Refusal) -> Answer {
        let mut answer = match kind {
            Kind::Apns => apns::refused(refusal, &judged.id),
            Kind::Fcm => fcm::refused(refusal),
            Kind::OAuth => oauth::refused(refusal),
            Kind::WebPush => web::refused(refusal),
        };
        if let Some(after) = &refusal.retry_after {
            answer = answer.with("retry-after", after);
        }
        self.note(kind, &judged.token, refusal.status, &refusal.reason);
        answer
    }

    fn note(&self, kind: Kind, token: &str, status: u16, reason: &str) {
        let answered = Answered {
            kind,
            token: token.to_owned(),
            status,
            reason: reason.to_owned(),
        };
        self.server
            .world
            .record
            .write(|seen| seen.answered.push(answered));
    }
}

async fn collect(request: Request<Incoming>) -> Result<Call, Failure> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX)
        .collect()
        .await?
        .to_bytes();
    let host = parts
        .headers
        .get("host")
        .map(|host| host.to_str().map(str::to_owned));
    let authority = parts.uri.authority().map(ToString::to_string);
    let path = parts.uri.path_and_query().map(ToString::to_string);
    Ok(Call {
        method: parts.method.to_string(),
        path: path.unwrap_or_default(),
        authority: authority.or(host.transpose()?).unwrap_or_else(String::new),
        headers: parts.headers,
        body,
    })
}
