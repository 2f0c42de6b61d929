//! What users ask about the presence of others, once or for a while.

use hashbrown::{HashMap, HashSet};

use super::{PresenceShown, board::Target, now};
use crate::{
    bridge::{
        Bridge,
        conversations::{Caller, ConversationError},
    },
    domain::{
        ids::{DeviceId, Subject},
        presence::PresenceSettings,
    },
    store::presence,
};

impl Bridge {
    /// Whether these users are there, in this order.
    pub async fn look_at(
        &self,
        caller: &Caller,
        users: Vec<Subject>,
    ) -> Result<Vec<PresenceShown>, ConversationError> {
        let users = self.names(users)?;
        let targets = self.targets(caller, &users).await?;
        let board = self.presence().lock();
        let now = now();
        let known = targets.iter().map(|target| {
            let shown = (board.look(target, now), false);
            (&target.name, shown)
        });
        Ok(self.answer(users, &known.collect()))
    }

    /// The same; from now on, in place of what it watched before, a connected device or a stream
    /// of the caller is told what changes.
    pub async fn watch(
        &self,
        caller: &Caller,
        device: DeviceId,
        users: Vec<Subject>,
    ) -> Result<Vec<PresenceShown>, ConversationError> {
        let users = self.names(users)?;
        let targets = self.targets(caller, &users).await?;
        let watcher = (caller.user, device);
        // Nothing is waited for from here on: the answer is written before what comes later.
        let shown = self
            .presence()
            .change(|board, now| board.watch(watcher, &targets, now));
        let refused = shown.iter().filter(|(_, is_watched)| !is_watched).count();
        let metrics = &self.presence().metrics;
        metrics.watches_refused.inc_by(refused as u64);
        let names = targets.iter().map(|target| &target.name);
        Ok(self.answer(users, &names.zip(shown).collect()))
    }

    fn answer(
        &self,
        users: Vec<Subject>,
        known: &HashMap<&Subject, (crate::domain::presence::Presence, bool)>,
    ) -> Vec<PresenceShown> {
        let seconds = self.presence().watch_ttl.as_secs();
        let shown = users.into_iter().map(|user| match known.get(&user) {
            Some(&(presence, is_watched)) => {
                PresenceShown::new(user, presence, is_watched.then_some(seconds))
            }
            None => PresenceShown::unknown(user),
        });
        shown.collect()
    }

    /// Each once, and not too many.
    fn names(&self, mut users: Vec<Subject>) -> Result<Vec<Subject>, ConversationError> {
        let max = self.presence().watched_max;
        if users.len() > max {
            let why = format!("at most {max} users at once");
            return Err(ConversationError::Invalid(why));
        }
        let mut seen = HashSet::new();
        users.retain(|user| seen.insert(user.clone()));
        Ok(users)
    }

    /// Those whom the caller may see.
    async fn targets(
        &self,
        caller: &Caller,
        users: &[Subject],
    ) -> Result<Vec<Target>, ConversationError> {
        if users.is_empty() {
            return Ok(Vec::new());
        }
        let mut conn = self.pool().acquire().await?;
        let found = presence::last_seen(&mut conn, users).await?;
        let pairs: Vec<_> = found
            .iter()
            .map(|found| (caller.user, found.user))
            .collect();
        let judged = presence::judge(&mut conn, &pairs).await?;
        let settings: HashMap<_, PresenceSettings> = judged
            .iter()
            .filter(|pair| pair.may_see)
            .map(|pair| (pair.target, pair.settings))
            .collect();
        let targets = found.into_iter().filter_map(|found| {
            let settings = *settings.get(&found.user)?;
            Some(Target {
                user: found.user,
                name: found.name,
                settings,
                last_seen_millis: found.last_seen_millis,
            })
        });
        Ok(targets.collect())
    }
}
