//! What is true: who is where, has seen what, and must be told of what.

use std::collections::{BTreeMap, BTreeSet};

use homing::domain::ids::{ConversationId, DeviceId, Subject, UserId};

/// A place in a list of [`People`].
pub(crate) type Index = usize;

#[derive(Debug)]
pub(crate) struct User {
    pub(crate) id: UserId,
    pub(crate) name: Subject,
    pub(crate) devices: Vec<Index>,
    pub(crate) conversations: Vec<Index>,
    /// From and until, in milliseconds.
    pub(crate) quiet: Option<(i64, i64)>,
}

#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) id: DeviceId,
    pub(crate) user: Index,
    pub(crate) client_id: String,
    pub(crate) connection: Option<Connection>,
    pub(crate) token: String,
    /// Whether the app is still installed.
    pub(crate) is_installed: bool,
    /// What it acknowledged, by conversation, what of that has been written, and where it has
    /// not.
    pub(crate) acknowledged: BTreeMap<Index, i64>,
    pub(crate) written: BTreeMap<Index, i64>,
    pub(crate) unwritten: BTreeSet<Index>,
    /// Notifications that are shown, by conversation.
    pub(crate) shown: BTreeMap<Index, i64>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection {
    pub(crate) generation: i64,
    /// It looks connected, and nothing comes through.
    pub(crate) is_half_open: bool,
}

#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) id: ConversationId,
    pub(crate) head: i64,
    pub(crate) messages: Vec<Message>,
    pub(crate) members: BTreeMap<Index, Member>,
}

#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) seq: i64,
    pub(crate) sender: Index,
    pub(crate) mentions: Option<Index>,
    pub(crate) is_urgent: bool,
    pub(crate) expires: bool,
    pub(crate) at: i64,
}

/// A user's part in a conversation.
#[derive(Clone, Debug, Default)]
pub(crate) struct Member {
    pub(crate) is_removed: bool,
    pub(crate) is_muted: bool,
    pub(crate) read: i64,
    /// Up to here nothing must be told: the user was away from the conversation.
    pub(crate) excused: i64,
    /// Up to here only mentions must be told: the conversation was muted.
    pub(crate) excused_by_mute: i64,
}

#[derive(Debug, Default)]
pub(crate) struct People {
    pub(crate) users: Vec<User>,
    pub(crate) devices: Vec<Device>,
    pub(crate) conversations: Vec<Conversation>,
    /// Up to here nothing must be told to a device: it had no token, or the provider gave up.
    pub(crate) excused: BTreeMap<(Index, Index), i64>,
}

impl People {
    /// From now on the device need not be told of what has been said so far.
    pub(crate) fn excuse_device(&mut self, device: Index) {
        let user = self.devices[device].user;
        for &conversation in &self.users[user].conversations {
            let head = self.conversations[conversation].head;
            self.excused.insert((device, conversation), head);
        }
    }

    pub(crate) fn excuse_up_to(&mut self, device: Index, conversation: Index, seq: i64) {
        let excused = self.excused.entry((device, conversation)).or_default();
        *excused = seq.max(*excused);
    }

    pub(crate) fn device_of(&self, id: DeviceId) -> Index {
        self.devices
            .iter()
            .position(|device| device.id == id)
            .unwrap()
    }

    pub(crate) fn conversation_of(&self, id: ConversationId) -> Index {
        let found = self
            .conversations
            .iter()
            .position(|conversation| conversation.id == id);
        found.unwrap()
    }

    pub(crate) fn acknowledged(&self, device: Index, conversation: Index) -> i64 {
        let acknowledged = &self.devices[device].acknowledged;
        acknowledged.get(&conversation).copied().unwrap_or_default()
    }
}
