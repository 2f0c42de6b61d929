//! Requests that come again with the same key are done once, and answered as before.
//!
//! ```text
//!   key is new ──▶ begun ──▶ done ──▶ answer kept for a day; a repeat gets it again
//!                    │ 5xx, good for a while only, the process died, or no answer for a minute:
//!                    │ begun again, same seed
//! ```
//!
//! What has begun runs to its end in a task of its own, whether or not anybody waits for the
//! answer. A stop waits for it: the task holds the bridge, and writers work until nobody does.
//! Whatever must not happen twice even if the process dies in between takes its id from the seed.

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt as _;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::{Bridge, conversations::Caller, operations::OperationError};
use crate::{
    domain::{
        ids::UserId,
        problem::{Problem, ProblemKind},
        request::Answer,
    },
    store::{
        StoreError,
        idempotency::{self, Begun, Keyed, Opened},
    },
};

/// The longest idempotency key, in bytes.
pub(super) const KEY_BYTES_MAX: usize = 64;

/// Requests with a key that are worked on at the same time, at most.
const KEYED_MAX: usize = 1024;

/// The requests with a key that are worked on.
#[derive(Debug)]
pub(super) struct Requests {
    tasks: TaskTracker,
    /// What was begun before was begun by a process that is gone.
    opened: Opened,
}

impl Requests {
    pub(super) fn new(opened: Opened) -> Self {
        let tasks = TaskTracker::new();
        Self { tasks, opened }
    }
}

impl Bridge {
    /// Does what `request` says, part by part, unless it is answered already. `work` gets a
    /// seed that is the same whenever this request is begun again.
    pub(super) async fn once<F: Future<Output = Answer> + Send>(
        &self,
        name: &'static str,
        caller: &Caller,
        key: &str,
        request: &[&[u8]],
        work: impl FnOnce(Self, Caller, Uuid) -> F + Send + 'static,
    ) -> Answer {
        let fits = (1..=KEY_BYTES_MAX).contains(&key.len());
        if !fits || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            let detail =
                format!("an idempotency key has 1 to {KEY_BYTES_MAX} visible ASCII characters");
            return Problem::new(ProblemKind::Invalid, detail).into();
        }
        let tasks = &self.requests().tasks;
        if tasks.len() >= KEYED_MAX {
            let detail = "the server is busy; send the same request again";
            return Problem::new(ProblemKind::Unavailable, detail).into();
        }
        let (bridge, caller, key) = (self.clone(), caller.clone(), key.to_owned());
        let hash = hash(request);
        let task = tasks.spawn(async move {
            let user = caller.user;
            let seed = match bridge.begin_once(user, &key, &hash).await {
                Ok(Ok(seed)) => seed,
                Ok(Err(answer)) => return answer,
                Err(error) => return OperationError::from(error).answer(name),
            };
            // A panic as well gives the key up.
            let work = async { work(bridge.clone(), caller, seed).await };
            let answer = finished(name, work).await;
            bridge.end_once(user, &key, &answer).await;
            answer
        });
        task.await.unwrap_or_else(|error| failed(name, &error))
    }

    async fn begin_once(
        &self,
        user: UserId,
        key: &str,
        request_hash: &[u8],
    ) -> Result<Result<Uuid, Answer>, StoreError> {
        let keyed = Keyed {
            user,
            key,
            request_hash,
        };
        let mut conn = self.pool().acquire().await?;
        let problem = match idempotency::begin(&mut conn, keyed, self.requests().opened).await? {
            Begun::Mine { seed } => return Ok(Ok(seed)),
            Begun::Answered { status, body } => return replayed(status, body).map(Err),
            Begun::InWork { seconds } => {
                let detail = "the request with this idempotency key is being worked on";
                let seconds = u64::try_from(seconds).unwrap_or(1);
                Problem::new(ProblemKind::Conflict, detail).retry_after(seconds)
            }
            Begun::OtherRequest => {
                let detail = "the idempotency key stands for another request; take a new one";
                Problem::new(ProblemKind::KeyReused, detail)
            }
        };
        Ok(Err(problem.into()))
    }

    /// Keeps the answer. After a failure of the server, and for what is good for a while only, the
    /// request may be begun again.
    async fn end_once(&self, user: UserId, key: &str, answer: &Answer) {
        let ended = async {
            let mut conn = self.pool().acquire().await?;
            if answer.status >= 500 || answer.is_passing {
                return idempotency::give_up(&mut conn, user, key).await;
            }
            let status = i16::try_from(answer.status).map_err(StoreError::corrupt)?;
            let body = answer.body.as_deref().map(|body| body.get().as_bytes());
            idempotency::answer(&mut conn, user, key, status, body).await
        };
        if let Err(error) = ended.await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "an answer is not kept; a repeat is done again");
        }
    }
}

/// What comes of the work; a panic is a fault of the server as others are.
async fn finished(operation: &'static str, work: impl Future<Output = Answer>) -> Answer {
    let answer = AssertUnwindSafe(work).catch_unwind().await;
    // What it says, the process has written where panics go.
    answer.unwrap_or_else(|_| failed(operation, &"it panicked"))
}

fn failed(operation: &'static str, error: &dyn std::fmt::Display) -> Answer {
    tracing::error!(operation, %error, "a request failed");
    let detail = "this is a fault of the server; its log says more";
    Problem::new(ProblemKind::Internal, detail).into()
}

fn replayed(status: i16, body: Option<Vec<u8>>) -> Result<Answer, StoreError> {
    let body = body.map(|body| {
        let text = String::from_utf8(body).map_err(StoreError::corrupt)?;
        RawValue::from_string(text).map_err(StoreError::corrupt)
    });
    let status = u16::try_from(status).map_err(StoreError::corrupt)?;
    Ok(Answer {
        is_replayed: true,
        ..Answer::new(status, body.transpose()?)
    })
}

/// SHA-256 of the parts, each with its length.
fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
        assert_eq!(hash(&[b"ab", b"c"]), hash(&[b"ab", b"c"]));
    }

    #[tokio::test]
    async fn work_that_panics_fails_as_other_work_does() {
        let answer = finished("x", async { panic!("as it must") }).await;
        assert_eq!(answer.status, 500);
    }
}
