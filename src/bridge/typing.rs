//! Who is typing: through the writer of the conversation, which knows its participants, to
//! their connected devices. It exists in memory only, and may be lost anywhere on its way.

use std::{sync::Arc, time::Duration};

use hashbrown::HashMap;
use tokio::{sync::oneshot, time::Instant};

use super::{
    Bridge, Refusal,
    accept::{Work, Writer},
    conversations::{Caller, ConversationError},
    mailbox::{Event, Mailbox, TypingNotice},
};
use crate::{
    config::PresenceConfig,
    domain::{
        ids::{ConversationId, Subject, UserId},
        typing::Typing,
    },
    store::{StoreError, presence},
};

/// Users remembered by one writer as typing somewhere. Past it, nobody new is told of.
const TYPISTS_MAX: usize = 20_000;
/// Conversations of which one writer remembers who may not write. Past it, all are forgotten.
const CONVERSATIONS_MAX: usize = 20_000;
/// How long that is believed: a silence or a block that ends, or comes without an entry of
/// the log, is noticed within this time.
const RIGHTS_TTL: Duration = Duration::from_secs(10);

/// Somebody types in a conversation, or does not any more.
#[derive(Debug)]
pub struct TypingRequest {
    pub conversation: ConversationId,
    pub user: UserId,
    pub name: Subject,
    pub is_typing: bool,
    pub reply: TypingReply,
}

/// Who hears whether the user may say so.
#[derive(Debug)]
pub enum TypingReply {
    Session { mailbox: Arc<Mailbox>, ticket: u64 },
    Request(oneshot::Sender<Result<(), Refusal>>),
}

impl TypingReply {
    fn send(self, conversation: ConversationId, result: Result<(), Refusal>) {
        match self {
            Self::Session { mailbox, ticket } => mailbox.tell(Event::Typed {
                ticket,
                conversation,
                result,
            }),
            // Whoever asked may have gone.
            Self::Request(request) => drop(request.send(result)),
        }
    }
}

impl Bridge {
    /// Passes on that somebody types, unless the writer has too much to do: messages come first.
    pub fn typing(&self, request: TypingRequest) {
        let queue = self.0.writers.of(request.conversation);
        let is_busy = queue.capacity() < queue.max_capacity() / 2;
        let permit = queue.try_reserve().ok().filter(|_| !is_busy);
        if let Some(permit) = permit {
            permit.send(Work::Typing(request));
        } else {
            self.0.metrics.events_dropped.inc();
            request.reply.send(request.conversation, Ok(()));
        }
    }

    /// Passes on that the caller types, or does not any more.
    pub async fn say_typing(
        &self,
        caller: &Caller,
        conversation: ConversationId,
        is_typing: bool,
    ) -> Result<(), ConversationError> {
        let (reply, verdict) = oneshot::channel();
        self.typing(TypingRequest {
            conversation,
            user: caller.user,
            name: caller.subject.clone(),
            is_typing,
            reply: TypingReply::Request(reply),
        });
        match verdict.await {
            Ok(Ok(())) => Ok(()),
            Err(_) => Err(ConversationError::Unavailable),
            Ok(Err(_)) => {
                self.visible(caller, conversation).await?;
                Err(ConversationError::Forbidden(
                    "you may read this conversation, not write to it",
                ))
            }
        }
    }
}

impl Writer {
    /// Tells the other participants. While the store is away nobody is told whose
    /// participants are not known.
    pub(super) async fn typing(&mut self, request: TypingRequest) {
        let result = self.tell_typing(&request).await.unwrap_or_else(|error| {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "who types is not told"
            );
            self.database.gave_up();
            self.metrics.events_dropped.inc();
            Ok(())
        });
        request.reply.send(request.conversation, result);
    }

    async fn tell_typing(
        &mut self,
        request: &TypingRequest,
    ) -> Result<Result<(), Refusal>, StoreError> {
        let &TypingRequest {
            conversation,
            user,
            is_typing,
            ..
        } = request;
        let known = self.told.members(&mut self.database, conversation).await?;
        let Some((version, members)) = known else {
            return Ok(Err(Refusal::NoConversation));
        };
        let present = members.iter().filter(|member| member.left.is_none());
        if !present.clone().any(|member| member.user == user) {
            return Ok(Err(Refusal::NotParticipant));
        }
        if present.count() > self.typists.participants_max {
            return Ok(Ok(()));
        }
        let now = Instant::now();
        if !self.typists.rights.has(conversation, version, now) {
            let silent = presence::silent(self.database.conn().await?, conversation).await?;
            self.typists.rights.put(conversation, version, silent, now);
        }
        if self.typists.rights.is_silent(conversation, user) {
            return Ok(Err(Refusal::NotParticipant));
        }
        if self
            .typists
            .pace
            .passes((conversation, user), is_typing, now)
        {
            let typing = Typing {
                user: &request.name,
                is_typing,
                expires_in_seconds: is_typing.then_some(self.typists.pace.ttl.as_secs()),
            };
            let payload = serde_json::to_vec(&typing).unwrap_or_default().into();
            let notice = Arc::new(TypingNotice {
                conversation,
                payload,
            });
            let dropped = self.told.publish_typing(&notice, user);
            self.metrics.events_dropped.inc_by(dropped);
        }
        Ok(Ok(()))
    }
}

/// What one writer knows of those who type in its conversations.
#[derive(Debug)]
pub(super) struct Typists {
    /// In larger conversations nobody is told.
    participants_max: usize,
    pace: Pace,
    rights: Rights,
}

impl Typists {
    pub(super) fn new(config: &PresenceConfig, participants_max: usize) -> Self {
        let pace = Pace {
            interval: config.typing_interval,
            ttl: config.typing_ttl,
            said: HashMap::new(),
        };
        Self {
            participants_max,
            pace,
            rights: Rights::default(),
        }
    }
}

/// Who may not write where, as it was read lately.
#[derive(Debug, Default)]
struct Rights(HashMap<ConversationId, Silent>);

#[derive(Debug)]
struct Silent {
    users: Vec<UserId>,
    /// Of the list of participants at that time.
    version: i32,
    at: Instant,
}

impl Rights {
    fn has(&self, conversation: ConversationId, version: i32, now: Instant) -> bool {
        self.0
            .get(&conversation)
            .is_some_and(|silent| silent.version == version && now < silent.at + RIGHTS_TTL)
    }

    fn put(&mut self, conversation: ConversationId, version: i32, users: Vec<UserId>, at: Instant) {
        if self.0.len() >= CONVERSATIONS_MAX {
            self.0.clear();
        }
        self.0.insert(conversation, Silent { users, version, at });
    }

    fn is_silent(&self, conversation: ConversationId, user: UserId) -> bool {
        let silent = self.0.get(&conversation);
        silent.is_some_and(|silent| silent.users.contains(&user))
    }
}

/// How often one user is told of in one conversation.
#[derive(Debug)]
struct Pace {
    interval: Duration,
    ttl: Duration,
    said: HashMap<(ConversationId, UserId), Said>,
}

/// The last time that others were told of somebody who began to type, or went on.
#[derive(Clone, Copy, Debug)]
struct Said {
    at: Instant,
    /// Whether they were not told of the end since.
    is_typing: bool,
}

impl Pace {
    /// Whether the others should be told this now.
    fn passes(&mut self, who: (ConversationId, UserId), is_typing: bool, now: Instant) -> bool {
        let known = self.said.get_mut(&who);
        if !is_typing {
            return known.is_some_and(|said| {
                let was_told = said.is_typing && now < said.at + self.ttl;
                said.is_typing = false;
                was_told
            });
        }
        if known.is_some_and(|said| now < said.at + self.interval) {
            return false;
        }
        if self.said.len() >= TYPISTS_MAX {
            self.said.retain(|_, said| now < said.at + self.ttl);
        }
        let has_room = self.said.len() < TYPISTS_MAX || self.said.contains_key(&who);
        if has_room {
            let at = now;
            self.said.insert(who, Said { at, is_typing });
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(3);

    fn who(number: u128) -> (ConversationId, UserId) {
        (ConversationId(uuid::Uuid::from_u128(number)), UserId(1))
    }

    fn pace() -> Pace {
        Pace {
            interval: INTERVAL,
            ttl: Duration::from_secs(5),
            said: HashMap::new(),
        }
    }

    /// Goal: each word of a user at a time, and whether the others hear it.
    #[test]
    fn typing_is_told_at_most_once_per_interval_and_its_end_at_once() {
        let start = Instant::now();
        let mut pace = pace();
        for (millis, is_typing, is_told) in [
            (0, false, false), // nobody was told that it began
            (100, true, true),
            (200, true, false),
            (3_000, true, false),
            (3_100, true, true),
            (3_200, false, true),
            (3_300, false, false),
            (3_400, true, false), // no faster by stopping
            (3_500, false, false),
            (6_100, true, true),
            (11_099, false, true),
            (20_000, true, true),
            (25_000, false, false), // over by itself
        ] {
            let now = start + Duration::from_millis(millis);
            assert_eq!(pace.passes(who(1), is_typing, now), is_told, "at {millis}");
        }
        let now = start + Duration::from_secs(25);
        assert!(pace.passes(who(2), true, now), "another conversation");
    }

    #[test]
    fn those_who_type_are_forgotten_when_there_are_too_many() {
        let start = Instant::now();
        let mut pace = pace();
        let max = TYPISTS_MAX as u128;
        assert!((0..max).all(|number| pace.passes(who(number), true, start)));
        assert!(!pace.passes(who(max), true, start));
        let later = start + INTERVAL;
        assert!(pace.passes(who(0), true, later), "who is known goes on");
        assert!(!pace.passes(who(max), true, later));
        let over = start + pace.ttl;
        assert!(pace.passes(who(max), true, over));
        assert_eq!(pace.said.len(), 2);
    }

    #[test]
    fn rights_are_believed_for_a_while_and_for_one_list_of_participants() {
        let start = Instant::now();
        let (mut rights, (conversation, user)) = (Rights::default(), who(1));
        assert!(!rights.has(conversation, 7, start));
        rights.put(conversation, 7, vec![user], start);
        assert!(rights.has(conversation, 7, start) && rights.is_silent(conversation, user));
        assert!(!rights.is_silent(conversation, UserId(2)));
        assert!(!rights.has(conversation, 8, start));
        assert!(!rights.has(conversation, 7, start + RIGHTS_TTL));
    }

    #[test]
    fn rights_are_forgotten_when_there_are_too_many() {
        let start = Instant::now();
        let mut rights = Rights::default();
        let max = CONVERSATIONS_MAX as u128;
        (0..=max).for_each(|number| rights.put(who(number).0, 7, Vec::new(), start));
        assert!(rights.has(who(max).0, 7, start));
        assert!(!rights.has(who(0).0, 7, start));
        assert_eq!(rights.0.len(), 1);
    }
}
