//! What was unread of users with thousands of conversations when all of them were looked at.
//!
//! It only saves looking at all of them again; every page is judged by the store. A restart
//! forgets it, and of whoever has not asked for longest it is forgotten when there is no room.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hashbrown::HashMap;
use sqlx::PgConnection;

use crate::{
    domain::ids::UserId,
    store::{
        StoreError,
        inbox_unread::{self, Unread},
    },
};

/// Conversations remembered in a generation, of which there are two; past it the older one is
/// forgotten. With 24 bytes each, 10 MB.
const PLACES_MAX: usize = 200_000;
/// What a user costs that has nothing unread.
const USER_PLACES: usize = 10;

/// What is known of the users who asked of late.
#[derive(Debug, Default)]
pub(in crate::bridge) struct Walks(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<UserId, Arc<Unread>>,
    old: HashMap<UserId, Arc<Unread>>,
    /// In the young one.
    places: usize,
}

impl Walks {
    /// What is known of what is unread, after looking at all conversations if that is due. None
    /// for a user who has not so many, or if everybody's are active all the time.
    ///
    /// `as_of_millis` comes from a statement before.
    pub(super) async fn unread(
        &self,
        conn: &mut PgConnection,
        user: UserId,
        as_of_millis: i64,
    ) -> Result<Option<Arc<Unread>>, StoreError> {
        let known = self.lock().get(user);
        let asked = inbox_unread::ask(conn, user, known.as_deref(), as_of_millis).await?;
        if !asked.is_due {
            return Ok(known.filter(|_| asked.is_current));
        }
        let looked = Arc::new(inbox_unread::look(conn, user, known.as_deref(), asked).await?);
        self.lock().put(user, Arc::clone(&looked));
        Ok(Some(looked))
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn get(&mut self, user: UserId) -> Option<Arc<Unread>> {
        if let Some(known) = self.young.get(&user) {
            return Some(Arc::clone(known));
        }
        let known = self.old.remove(&user)?;
        self.put(user, Arc::clone(&known));
        Some(known)
    }

    fn put(&mut self, user: UserId, known: Arc<Unread>) {
        let added = cost(&known);
        if self.places + added > PLACES_MAX {
            self.old = mem::take(&mut self.young);
            self.places = 0;
        }
        self.places += added;
        if let Some(before) = self.young.insert(user, known) {
            self.places -= cost(&before);
        }
    }
}

fn cost(known: &Unread) -> usize {
    known.places.len() + USER_PLACES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{domain::ids::ConversationId, store::inbox::Place};

    fn unread(count: usize) -> Arc<Unread> {
        let place = Place {
            activity_micros: 0,
            conversation: ConversationId::random(),
        };
        Arc::new(Unread {
            server: 0,
            as_of_millis: 0,
            taken_millis: 0,
            places: vec![place; count],
            is_all: true,
        })
    }

    #[test]
    fn whoever_has_not_asked_for_longest_is_forgotten() {
        let mut generations = Generations::default();
        for user in 0..1_000 {
            generations.put(UserId(user), unread(1_000));
            // The first one asks again and again.
            assert!(generations.get(UserId(0)).is_some(), "{user}");
            let held = generations.young.values().chain(generations.old.values());
            let places: usize = held.map(|known| known.places.len()).sum();
            assert!(places <= 2 * PLACES_MAX, "{places}");
        }
        assert!(generations.get(UserId(1)).is_none());
        assert!(generations.get(UserId(999)).is_some());
    }

    #[test]
    fn what_is_known_anew_takes_no_more_room() {
        let mut generations = Generations::default();
        for _ in 0..1_000 {
            generations.put(UserId(1), unread(1_000));
        }
        assert_eq!(generations.places, 1_000 + USER_PLACES);
        for user in 0..3 {
            generations.put(UserId(user), unread(0));
        }
        assert_eq!(generations.places, 3 * USER_PLACES);
    }
}
