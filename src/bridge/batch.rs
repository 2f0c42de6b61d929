//! What one commit takes: messages, and who waits for them.

use std::sync::Arc;

use hashbrown::{HashMap, hash_map::Entry};
use tokio::time::Instant;

use super::{Refusal, accept::verdict, mailbox::Reply};
use crate::{
    domain::{
        envelope::{Stamp, entry_json},
        ids::{ClientMessageId, ConversationId, UserId},
        message::{LogEntry, NewMessage, Position, Sequence, SharedEntry},
    },
    store::messages::{Appended, Outcome},
};

/// A message on its way into the log.
#[derive(Debug)]
pub(super) struct Incoming {
    pub message: NewMessage,
    pub reply: Reply,
    /// When it arrived.
    pub at: Instant,
}

/// Messages for one commit, each of them once.
#[derive(Debug)]
pub(super) struct Batch {
    messages: Vec<NewMessage>,
    waiting: Vec<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    reply: Reply,
    at: Instant,
    /// Its message, as an index into the batch.
    place: usize,
    /// Whether the same message stood in the batch before.
    is_repeat: bool,
}

/// New entries of one conversation.
#[derive(Debug)]
pub(super) struct Commit {
    pub conversation: ConversationId,
    pub from: i64,
    pub to: i64,
    pub entries: Vec<SharedEntry>,
    pub members_version: i32,
}

impl Batch {
    /// Folds repeats within the batch: they are stored once and answered each.
    pub(super) fn fold(incoming: Vec<Incoming>) -> Self {
        let mut places: HashMap<(ConversationId, UserId, ClientMessageId), usize> =
            HashMap::with_capacity(incoming.len());
        let mut batch = Self {
            messages: Vec::new(),
            waiting: Vec::with_capacity(incoming.len()),
        };
        for Incoming { message, reply, at } in incoming {
            let key = (
                message.conversation,
                message.sender,
                message.content.id.clone(),
            );
            let (place, is_repeat) = match places.entry(key) {
                Entry::Occupied(known) => (*known.get(), true),
                Entry::Vacant(free) => {
                    batch.messages.push(message);
                    (*free.insert(batch.messages.len() - 1), false)
                }
            };
            batch.waiting.push(Waiting {
                reply,
                at,
                place,
                is_repeat,
            });
        }
        batch.arrange();
        batch
    }

    /// Sorts messages and changes apart, as far as every conversation keeps its order.
    ///
    /// Each phase holds one sort. A conversation goes on to the next one when the sort of what
    /// it was sent flips, so that there are no more phases than the busiest one has flips:
    ///
    /// ```text
    ///   a: message, edit, message     b: edit, edit     c: message
    ///   phases:  [a.message, c.message]  [a.edit, b.edit, b.edit]  [a.message]
    /// ```
    fn arrange(&mut self) {
        if !self.messages.iter().any(|one| one.content.is_change()) {
            return;
        }
        let mut newest: HashMap<ConversationId, usize> = HashMap::new();
        let messages = std::mem::take(&mut self.messages);
        // Even phases hold messages, odd ones changes.
        let mut phased: Vec<_> = messages
            .into_iter()
            .enumerate()
            .map(|(place, message)| {
                let phase = newest.entry(message.conversation).or_insert(0);
                *phase += usize::from((*phase % 2 == 1) != message.content.is_change());
                (*phase, place, message)
            })
            .collect();
        phased.sort_by_key(|(phase, ..)| *phase);
        let mut moved = vec![0; phased.len()];
        for (place, (_, before, message)) in phased.into_iter().enumerate() {
            moved[before] = place;
            self.messages.push(message);
        }
        for waiting in &mut self.waiting {
            waiting.place = moved[waiting.place];
        }
    }

    /// What is committed together, in order: messages, then changes, then messages, …
    pub(super) fn phases(&self) -> impl Iterator<Item = &[NewMessage]> {
        self.messages
            .chunk_by(|one, next| one.content.is_change() == next.content.is_change())
    }

    pub(super) fn messages(&self) -> &[NewMessage] {
        &self.messages
    }

    pub(super) fn arrivals(&self) -> impl Iterator<Item = Instant> {
        self.waiting.iter().map(|waiting| waiting.at)
    }

    /// Who has written which message.
    pub(super) fn written(
        &self,
        answers: &[Result<Appended, Refusal>],
    ) -> impl Iterator<Item = (UserId, ConversationId, Sequence)> {
        let stored = self.messages.iter().zip(answers);
        stored.filter_map(|(message, answer)| match answer.as_ref().ok()?.outcome {
            Outcome::Stored { sequence, .. } if !message.content.is_change() => {
                Some((message.sender, message.conversation, sequence))
            }
            _ => None,
        })
    }

    /// Answers everybody, and returns what was appended, conversation by conversation.
    ///
    /// If an earlier attempt `is_uncertain`, a duplicate may be what that attempt stored:
    /// it is announced once more, without its entry.
    pub(super) fn answer(
        self,
        answers: &[Result<Appended, Refusal>],
        is_uncertain: bool,
    ) -> Vec<Commit> {
        let commits = commits(&self.messages, answers, is_uncertain, Instant::now().into());
        for waiting in self.waiting {
            let verdict = verdict(&answers[waiting.place]).map(|mut accepted| {
                accepted.is_duplicate |= waiting.is_repeat;
                accepted
            });
            waiting.reply.send(&self.messages[waiting.place], verdict);
        }
        commits
    }
}

fn commits(
    messages: &[NewMessage],
    answers: &[Result<Appended, Refusal>],
    is_uncertain: bool,
    now: std::time::Instant,
) -> Vec<Commit> {
    let mut commits: Vec<Commit> = Vec::new();
    let mut places: HashMap<ConversationId, usize> = HashMap::new();
    for (message, answer) in messages.iter().zip(answers) {
        let Ok(appended) = answer else { continue };
        let (sequence, entry) = match appended.outcome {
            Outcome::Stored {
                sequence,
                at_millis,
            } => {
                let stamp = Stamp {
                    sequence,
                    from: &message.sender_name,
                    at_millis,
                };
                let position = Position {
                    conversation: message.conversation,
                    sequence,
                };
                let entry = LogEntry::new(
                    position,
                    message.sender_device,
                    entry_json(stamp, &message.content),
                );
                (sequence.get(), Some(Arc::new(entry.committed(now))))
            }
            Outcome::Duplicate { sequence } if is_uncertain => (sequence.get(), None),
            _ => continue,
        };
        let place = *places.entry(message.conversation).or_insert_with(|| {
            commits.push(Commit {
                conversation: message.conversation,
                from: sequence,
                to: sequence,
                entries: Vec::new(),
                members_version: 0,
            });
            commits.len() - 1
        });
        let commit = &mut commits[place];
        commit.from = commit.from.min(sequence);
        commit.to = commit.to.max(sequence);
        commit.members_version = commit.members_version.max(appended.members_version);
        commit.entries.extend(entry);
    }
    commits
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::domain::{ids::Subject, message::Content};

    fn incoming(
        id: &str,
    ) -> (
        Incoming,
        oneshot::Receiver<Result<super::super::Accepted, Refusal>>,
    ) {
        let content = Content::new(ClientMessageId::new(id.into()).unwrap(), "text", "1");
        let message = NewMessage {
            conversation: ConversationId(uuid::Uuid::from_u128(1)),
            sender: UserId(1),
            sender_name: Subject::new("alice").unwrap(),
            sender_device: None,
            content,
        };
        let (reply, verdict) = oneshot::channel();
        (
            Incoming {
                message,
                reply: Reply::Request(reply),
                at: Instant::now(),
            },
            verdict,
        )
    }

    /// Goal: each conversation keeps its order, and there are no more commits than needed.
    #[test]
    fn messages_and_changes_are_sorted_into_phases() {
        let sent = [
            (1, "a1", false),
            (2, "b1", true),
            (1, "a2", true),
            (3, "c1", false),
            (1, "a2", true),
            (2, "b2", true),
            (1, "a3", false),
            (2, "b3", false),
        ];
        let mut verdicts = Vec::new();
        let incoming = sent.map(|(conversation, id, is_change)| {
            let (mut incoming, verdict) = incoming(id);
            incoming.message.conversation = ConversationId(uuid::Uuid::from_u128(conversation));
            incoming.message.content.target = is_change.then_some(Sequence::FIRST);
            verdicts.push((id, verdict));
            incoming
        });
        let batch = Batch::fold(incoming.into());

        let phases: Vec<Vec<_>> = batch
            .phases()
            .map(|phase| {
                phase
                    .iter()
                    .map(|one| one.content.id.as_str().to_owned())
                    .collect()
            })
            .collect();
        assert_eq!(
            phases,
            [vec!["a1", "c1"], vec!["b1", "a2", "b2"], vec!["a3", "b3"]]
        );

        // Everybody gets the answer to what they sent, wherever it was moved.
        let places = ["a1", "c1", "b1", "a2", "b2", "a3", "b3"];
        let answers = (1..).zip(places).map(|(place, _)| {
            Ok(Appended {
                outcome: Outcome::Stored {
                    sequence: Sequence::new(place).unwrap(),
                    at_millis: 1,
                },
                members_version: 1,
            })
        });
        batch.answer(&answers.collect::<Vec<_>>(), false);
        for (id, mut verdict) in verdicts {
            let place = verdict.try_recv().unwrap().unwrap().sequence.get();
            assert_eq!(places[usize::try_from(place).unwrap() - 1], id);
        }
    }

    #[test]
    fn a_repeat_within_a_batch_is_stored_once_and_answered_twice() {
        let (first, mut first_verdict) = incoming("a");
        let (repeat, mut repeat_verdict) = incoming("a");
        let batch = Batch::fold(vec![first, repeat]);
        assert_eq!(batch.messages().len(), 1);

        let outcome = Outcome::Stored {
            sequence: Sequence::FIRST,
            at_millis: 1,
        };
        let commits = batch.answer(
            &[Ok(Appended {
                outcome,
                members_version: 3,
            })],
            false,
        );

        assert_eq!(commits.len(), 1);
        assert_eq!(
            (commits[0].from, commits[0].to, commits[0].entries.len()),
            (1, 1, 1)
        );
        assert!(!first_verdict.try_recv().unwrap().unwrap().is_duplicate);
        assert!(repeat_verdict.try_recv().unwrap().unwrap().is_duplicate);
    }

    #[test]
    fn what_a_lost_attempt_may_have_stored_is_announced_again() {
        let answers = [Ok(Appended {
            outcome: Outcome::Duplicate {
                sequence: Sequence::new(7).unwrap(),
            },
            members_version: 3,
        })];
        let certain = Batch::fold(vec![incoming("a").0]).answer(&answers, false);
        assert!(certain.is_empty());
        let uncertain = Batch::fold(vec![incoming("a").0]).answer(&answers, true);
        assert_eq!((uncertain[0].from, uncertain[0].to), (7, 7));
    }
}
