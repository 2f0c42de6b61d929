//! Whom a writer tells: the participants of its conversations, and how far they were told.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{
    accept::Database,
    batch::Commit,
    commits::{Commits, Member},
    counts::Marks,
    mailbox::{Notice, ReceiptNotice, TypingNotice},
};
use crate::{
    domain::{
        ids::{ConversationId, UserId},
        receipt::Standing,
    },
    store::{StoreError, conversations, cursors::Moved},
    telemetry::metrics::BridgeMetrics,
};

/// Conversations remembered by one writer. Past it, all are forgotten and read again.
const CONVERSATIONS_MAX: usize = 20_000;

/// What a writer knows of its conversations.
pub(super) struct Told {
    commits: Arc<Commits>,
    conversations: HashMap<ConversationId, Known>,
    /// In larger conversations authors are told counts.
    receipts_participants_max: usize,
    marks: Arc<Marks>,
    metrics: BridgeMetrics,
}

struct Known {
    version: i32,
    members: Vec<Member>,
    /// The newest sequence that the participants were told of; 0 if none was.
    told: i64,
}

impl Told {
    pub(super) fn new(
        commits: Arc<Commits>,
        receipts_participants_max: usize,
        marks: Arc<Marks>,
        metrics: BridgeMetrics,
    ) -> Self {
        Self {
            commits,
            conversations: HashMap::new(),
            receipts_participants_max,
            marks,
            metrics,
        }
    }

    /// Tells the participants of new entries.
    pub(super) async fn commits(&mut self, database: &mut Database, commits: Vec<Commit>) {
        let stale: Vec<_> = commits
            .iter()
            .filter(|commit| !self.knows(commit.conversation, commit.members_version))
            .map(|commit| commit.conversation)
            .collect();
        self.load(database, stale).await;
        for commit in commits {
            self.tell(commit);
        }
    }

    /// The outbox knows of a commit: tells of it unless that was done.
    pub(super) async fn relay(
        &mut self,
        database: &mut Database,
        conversation: ConversationId,
        from: i64,
        to: i64,
    ) {
        if self
            .conversations
            .get(&conversation)
            .is_some_and(|known| known.told >= to)
        {
            return;
        }
        self.metrics.relayed.inc();
        self.load(database, vec![conversation]).await;
        let (entries, members_version) = (Vec::new(), 0);
        self.tell(Commit {
            conversation,
            from,
            to,
            entries,
            members_version,
        });
    }

    /// Tells the participants where some of them stand; the own devices alone of who has
    /// receipts switched off. In a large conversation authors are told how many it are.
    pub(super) async fn receipts(
        &mut self,
        database: &mut Database,
        conversation: ConversationId,
        moved: Vec<Moved>,
    ) {
        if !self.conversations.contains_key(&conversation) {
            self.load(database, vec![conversation]).await;
        }
        let Some(known) = self.conversations.get(&conversation) else {
            return;
        };
        let present = known
            .members
            .iter()
            .filter(|member| member.left.is_none())
            .count();
        if present > self.receipts_participants_max {
            if moved.iter().any(|moved| moved.is_told) {
                self.marks.mark(conversation);
            }
            return;
        }
        for moved in moved {
            let standing = Standing {
                user: moved.name,
                delivered: moved.delivered,
                read: moved.read,
            };
            let payload = serde_json::to_vec(&standing).unwrap_or_default().into();
            let receipt = Arc::new(ReceiptNotice {
                conversation,
                payload,
            });
            let dropped = if moved.is_told {
                self.commits.publish_receipt(&receipt, &known.members)
            } else {
                self.commits.tell_receipt(moved.user, &receipt)
            };
            self.metrics.receipts_dropped.inc_by(dropped);
        }
    }

    /// Tells the participants what their inboxes show of a conversation.
    pub(super) async fn inbox_changed(
        &mut self,
        database: &mut Database,
        conversation: ConversationId,
    ) {
        if !self.conversations.contains_key(&conversation) {
            self.load(database, vec![conversation]).await;
        }
        let known = self.conversations.get(&conversation);
        let members = known.into_iter().flat_map(|known| &known.members);
        for member in members.filter(|member| member.left.is_none()) {
            self.commits.inbox_changed(member.user, conversation);
        }
    }

    /// Who takes part or took part, and the version of that list; read, once, if it is not
    /// known. Nothing: there is no such conversation.
    pub(super) async fn members(
        &mut self,
        database: &mut Database,
        conversation: ConversationId,
    ) -> Result<Option<(i32, &[Member])>, StoreError> {
        if !self.conversations.contains_key(&conversation) {
            let lists = read(database, &[conversation]).await?;
            self.remember(lists);
        }
        let known = self.conversations.get(&conversation);
        Ok(known.map(|known| (known.version, &known.members[..])))
    }

    /// Tells the participants, but not the one it is about; how many devices had no room.
    pub(super) fn publish_typing(&self, typing: &Arc<TypingNotice>, who: UserId) -> u64 {
        let known = self.conversations.get(&typing.conversation);
        known.map_or(0, |known| {
            self.commits.publish_typing(typing, &known.members, who)
        })
    }

    fn tell(&mut self, commit: Commit) {
        let Some(known) = self.conversations.get_mut(&commit.conversation) else {
            return;
        };
        // From where the last notice ended: what another node, or an attempt whose answer
        // was lost, appended in between is told along.
        let from = if known.told > 0 {
            commit.from.min(known.told + 1)
        } else {
            commit.from
        };
        let Commit {
            conversation,
            to,
            entries,
            ..
        } = commit;
        known.told = known.told.max(to);
        self.commits.remember_told(conversation, to);
        let notice = Arc::new(Notice {
            conversation,
            from,
            to,
            entries,
        });
        self.commits.publish(&notice, &known.members);
    }

    fn knows(&self, conversation: ConversationId, version: i32) -> bool {
        self.conversations
            .get(&conversation)
            .is_some_and(|known| known.version >= version)
    }

    /// Reads the participants, however long the store is away: a commit must be told.
    async fn load(&mut self, database: &mut Database, stale: Vec<ConversationId>) {
        if stale.is_empty() {
            return;
        }
        let lists = loop {
            match read(database, &stale).await {
                Ok(lists) => break lists,
                Err(error) if error.is_transient() && database.retry_after(&error).await => {}
                Err(error) => {
                    // The outbox keeps the commit; a reconnecting device reads the log.
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "participants cannot be read"
                    );
                    return;
                }
            }
        };
        self.remember(lists);
    }

    fn remember(&mut self, lists: Lists) {
        if self.conversations.len() > CONVERSATIONS_MAX {
            self.conversations.clear();
        }
        for (conversation, version, participants) in lists {
            let members = participants
                .into_iter()
                .map(|member| Member {
                    user: member.user,
                    joined: member.joined,
                    left: member.left,
                })
                .collect();
            let told = self
                .conversations
                .get(&conversation)
                .map_or(0, |known| known.told);
            self.conversations.insert(
                conversation,
                Known {
                    version,
                    members,
                    told,
                },
            );
        }
    }
}

type Lists = Vec<(ConversationId, i32, Vec<conversations::Participant>)>;

async fn read(database: &mut Database, stale: &[ConversationId]) -> Result<Lists, StoreError> {
    conversations::participants(database.conn().await?, stale).await
}
