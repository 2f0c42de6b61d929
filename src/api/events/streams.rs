//! How many streams are open, of all and of a user.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hashbrown::HashMap;
use tokio::time::Instant;

use crate::{
    api::error::ApiError,
    domain::{ids::UserId, problem::ProblemKind},
};

/// The streams that are open.
#[derive(Debug)]
pub(in crate::api) struct Streams {
    seats: Mutex<Seats>,
    max: usize,
    per_user_max: usize,
}

/// Who sits where, those whose token ends first in front.
#[derive(Debug, Default)]
struct Seats {
    taken: BTreeMap<(Instant, u64), UserId>,
    users: HashMap<UserId, usize>,
    number: u64,
}

impl Streams {
    pub(in crate::api) fn new(max: usize, per_user_max: usize) -> Self {
        Self {
            seats: Mutex::default(),
            max,
            per_user_max,
        }
    }

    /// A seat until the token ends, whether or not the reader takes notice of that.
    pub(super) fn take_seat(
        self: &Arc<Self>,
        user: UserId,
        ends: Instant,
        now: Instant,
    ) -> Result<Seat, ApiError> {
        let refused = |kind, detail: &str| Err(ApiError::Refused(kind, detail.to_owned()));
        let mut seats = self.lock();
        while let Some((&place, _)) = seats.taken.first_key_value()
            && place.0 <= now
        {
            seats.leave(place);
        }
        if seats.taken.len() >= self.max {
            let detail = "as many streams are open as there may be; try again later";
            return refused(ProblemKind::Unavailable, detail);
        }
        if seats
            .users
            .get(&user)
            .is_some_and(|open| *open >= self.per_user_max)
        {
            let detail = "you have as many streams open as there may be; close one";
            return refused(ProblemKind::TooMany, detail);
        }
        seats.number += 1;
        let place = (ends, seats.number);
        seats.taken.insert(place, user);
        *seats.users.entry(user).or_default() += 1;
        drop(seats);
        let streams = self.clone();
        Ok(Seat { streams, place })
    }

    fn lock(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seats {
    /// Once: afterwards somebody else may sit there.
    fn leave(&mut self, place: (Instant, u64)) {
        let Some(user) = self.taken.remove(&place) else {
            return;
        };
        if let Some(open) = self.users.get_mut(&user) {
            *open -= 1;
            if *open == 0 {
                self.users.remove(&user);
            }
        }
    }
}

/// The place of one stream; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Seat {
    streams: Arc<Streams>,
    place: (Instant, u64),
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.streams.lock().leave(self.place);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn refused(seat: Result<Seat, ApiError>) -> ProblemKind {
        match seat {
            Err(ApiError::Refused(kind, _)) => kind,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_seat_is_free_again_when_its_token_ends_and_then_not_once_more() {
        let (streams, now) = (Arc::new(Streams::new(3, 1)), Instant::now());
        let [ann, bob, carol, dave] = [1, 2, 3, 4].map(UserId);
        let [soon, later] = [1, 2].map(|seconds| now + Duration::from_secs(seconds));
        let stalled = streams.take_seat(ann, soon, now).unwrap();
        let second = streams.take_seat(ann, later, now);
        assert_eq!(refused(second), ProblemKind::TooMany);
        let _bob = streams.take_seat(bob, later, now).unwrap();
        let next = streams.take_seat(ann, later, soon).unwrap();
        drop(stalled);
        let second = streams.take_seat(ann, later, soon);
        assert_eq!(refused(second), ProblemKind::TooMany);
        let _carol = streams.take_seat(carol, later, soon).unwrap();
        let fourth = streams.take_seat(dave, later, soon);
        assert_eq!(refused(fourth), ProblemKind::Unavailable);
        drop(next);
        streams.take_seat(ann, later, soon).unwrap();
    }
}
