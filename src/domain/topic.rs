//! The topic grammar: what a device may publish to and subscribe to.
//!
//! ```text
//!   c/{cid}/send       device → server   a message; PUBACK = committed
//!   c/{cid}/messages   server → device   the log
//!   c/{cid}/receipts   both              how far participants have got
//!   c/{cid}/typing     both              who is typing
//!   me/inbox           server → device   rows of the user's inbox that changed
//!   me/presence        server → device   whether watched users are there
//!   me/device          server → device   replies, refusals and limits, for this device alone
//!   me/state           device → server   whether somebody looks at the device
//!   q/{operation}      device → server   a request, answered on me/device or its Response Topic
//! ```
//!
//! Whether a user may use a topic is not decided here: a filter such as `c/#` is
//! always granted and means "what I may see at the moment of delivery".

use super::ids::ConversationId;

/// Where rows of the user's inbox arrive that changed.
pub const ME_INBOX: &str = "me/inbox";
/// Where it arrives whether users are there whom the device watches.
pub const ME_PRESENCE: &str = "me/presence";
/// Where refusals and warnings for one device arrive.
pub const ME_DEVICE: &str = "me/device";
/// Where a device says whether somebody looks at it.
pub const ME_STATE: &str = "me/state";
/// The longest name of an operation, in bytes.
pub const OPERATION_BYTES_MAX: usize = 64;

/// What a device may publish to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishTopic {
    /// `c/{cid}/send`
    Send(ConversationId),
    /// `c/{cid}/receipts`
    Receipts(ConversationId),
    /// `c/{cid}/typing`
    Typing(ConversationId),
    /// [`ME_STATE`]
    State,
    /// `q/{operation}`, of which the name alone is known to be well-formed.
    Request(Box<str>),
}

/// Why a topic name or filter is not one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// Nothing but a UTF-8 string of 1 to 65,535 bytes without NUL and wildcards names a topic.
    #[error("a topic name has no wildcards and no NUL, and is not empty")]
    InvalidName,
    /// [MQTT-4.7.1-1], [MQTT-4.7.1-2]: wildcards stand alone in their level, # only at the end.
    #[error("a wildcard stands alone in its level, and # only in the last one")]
    InvalidFilter,
    /// A well-formed topic that no device may use.
    #[error(
        "this topic is not granted to devices; use c/{{conversation}}/send, /receipts or /typing, me/state, or q/{{operation}}"
    )]
    NotGranted,
}

impl PublishTopic {
    /// Reads the topic of a PUBLISH.
    ///
    /// # Errors
    ///
    /// [`TopicError::InvalidName`] or [`TopicError::NotGranted`].
    pub fn parse(name: &str) -> Result<Self, TopicError> {
        if name.is_empty() || name.contains(['+', '#', '\0']) {
            return Err(TopicError::InvalidName);
        }
        if name == ME_STATE {
            return Ok(Self::State);
        }
        if let Some(operation) = name.strip_prefix("q/") {
            return if is_operation(operation) {
                Ok(Self::Request(operation.into()))
            } else {
                Err(TopicError::NotGranted)
            };
        }
        let (conversation, leaf) = name
            .strip_prefix("c/")
            .and_then(|rest| rest.split_once('/'))
            .ok_or(TopicError::NotGranted)?;
        let conversation = conversation.parse().map_err(|_| TopicError::NotGranted)?;
        match leaf {
            "send" => Ok(Self::Send(conversation)),
            "receipts" => Ok(Self::Receipts(conversation)),
            "typing" => Ok(Self::Typing(conversation)),
            _ => Err(TopicError::NotGranted),
        }
    }
}

fn is_operation(name: &str) -> bool {
    let is_plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'/' | b'-');
    (1..=OPERATION_BYTES_MAX).contains(&name.len()) && name.bytes().all(is_plain)
}

/// One topic level of a filter: anything, or one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level<T> {
    Any,
    One(T),
}

impl<T: PartialEq> Level<T> {
    fn covers(&self, value: &T) -> bool {
        match self {
            Self::Any => true,
            Self::One(one) => one == value,
        }
    }
}

/// What a conversation sends to devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leaf {
    Messages,
    Receipts,
    Typing,
}

/// What a subscription covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// `c/#`, `c/+/messages`, `c/{cid}/messages`, …
    Conversation {
        conversation: Level<ConversationId>,
        leaf: Level<Leaf>,
    },
    /// `me/#`, `me/+` or `me/{what}`
    Me(Mine),
}

/// What a filter covers of that which is for one user or device alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mine {
    /// `#`: everything.
    All,
    /// `+`: whatever has one level.
    Level,
    /// [`ME_DEVICE`]
    Device,
    /// [`ME_INBOX`]
    Inbox,
    /// [`ME_PRESENCE`]
    Presence,
}

impl Filter {
    /// Reads a filter of a SUBSCRIBE or UNSUBSCRIBE.
    ///
    /// # Errors
    ///
    /// [`TopicError::InvalidFilter`] if it is malformed, [`TopicError::NotGranted`] if it
    /// covers nothing that devices may see.
    pub fn parse(filter: &str) -> Result<Self, TopicError> {
        if !is_well_formed(filter) {
            return Err(TopicError::InvalidFilter);
        }
        let levels: Vec<&str> = filter.split('/').collect();
        match levels[..] {
            ["c", "#"] => Ok(Self::conversation(Level::Any, Level::Any)),
            ["c", conversation, leaf] => Ok(Self::conversation(
                conversation_level(conversation)?,
                leaf_level(leaf)?,
            )),
            ["me", "#"] => Ok(Self::Me(Mine::All)),
            ["me", "+"] => Ok(Self::Me(Mine::Level)),
            ["me", "device"] => Ok(Self::Me(Mine::Device)),
            ["me", "inbox"] => Ok(Self::Me(Mine::Inbox)),
            ["me", "presence"] => Ok(Self::Me(Mine::Presence)),
            _ => Err(TopicError::NotGranted),
        }
    }

    fn conversation(conversation: Level<ConversationId>, leaf: Level<Leaf>) -> Self {
        Self::Conversation { conversation, leaf }
    }

    /// Whether it covers what `conversation` sends on `leaf`.
    #[must_use]
    pub fn covers(&self, conversation: &ConversationId, leaf: Leaf) -> bool {
        match self {
            Self::Conversation {
                conversation: id,
                leaf: level,
            } => id.covers(conversation) && level.covers(&leaf),
            Self::Me(_) => false,
        }
    }

    /// The conversations whose log it covers; nothing if it covers no log.
    #[must_use]
    pub fn log(&self) -> Option<Level<ConversationId>> {
        match self {
            Self::Conversation { conversation, leaf } if leaf.covers(&Leaf::Messages) => {
                Some(*conversation)
            }
            _ => None,
        }
    }

    /// Whether it covers a topic that begins with `me/`.
    #[must_use]
    pub fn covers_mine(&self, topic: &str) -> bool {
        let (Self::Me(mine), Some(rest)) = (self, topic.strip_prefix("me/")) else {
            return false;
        };
        match mine {
            Mine::All => true,
            Mine::Level => !rest.contains('/'),
            Mine::Device => topic == ME_DEVICE,
            Mine::Inbox => topic == ME_INBOX,
            Mine::Presence => topic == ME_PRESENCE,
        }
    }
}

/// [MQTT-4.7.1-1] to [MQTT-4.7.1-3], [MQTT-4.7.3-1] and [MQTT-4.7.3-2].
fn is_well_formed(filter: &str) -> bool {
    let last = filter.split('/').count() - 1;
    !filter.is_empty()
        && !filter.contains('\0')
        && filter
            .split('/')
            .enumerate()
            .all(|(place, level)| match level {
                "+" => true,
                "#" => place == last,
                _ => !level.contains(['+', '#']),
            })
}

fn conversation_level(level: &str) -> Result<Level<ConversationId>, TopicError> {
    match level {
        "+" => Ok(Level::Any),
        id => id
            .parse()
            .map(Level::One)
            .map_err(|_| TopicError::NotGranted),
    }
}

fn leaf_level(level: &str) -> Result<Level<Leaf>, TopicError> {
    match level {
        "+" | "#" => Ok(Level::Any),
        "messages" => Ok(Level::One(Leaf::Messages)),
        "receipts" => Ok(Level::One(Leaf::Receipts)),
        "typing" => Ok(Level::One(Leaf::Typing)),
        _ => Err(TopicError::NotGranted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> ConversationId {
        "AZjzwgAAcACAAAAAAAAAAQ".parse().unwrap()
    }

    #[test]
    fn publish_topics() {
        let send = format!("c/{}/send", id());
        assert_eq!(PublishTopic::parse(&send), Ok(PublishTopic::Send(id())));
        let long = format!("c/{}/receipts", id().0);
        assert_eq!(PublishTopic::parse(&long), Ok(PublishTopic::Receipts(id())));
        let typing = format!("c/{}/typing", id());
        assert_eq!(PublishTopic::parse(&typing), Ok(PublishTopic::Typing(id())));
        assert_eq!(PublishTopic::parse("me/state"), Ok(PublishTopic::State));
        for operation in ["ping", "push/token/set", "quiet-hours/get", "a_1"] {
            let topic = PublishTopic::parse(&format!("q/{operation}"));
            assert_eq!(topic, Ok(PublishTopic::Request(operation.into())));
        }
        for name in ["", "c/+/send", "c/#", "a\0b", "q/+", "me/+"] {
            assert_eq!(
                PublishTopic::parse(name),
                Err(TopicError::InvalidName),
                "{name}"
            );
        }
        let long = format!("q/{}", "x".repeat(OPERATION_BYTES_MAX + 1));
        for name in [
            "c",
            "c/x/send",
            "me/device",
            "me/state/",
            "q",
            "q/",
            "q/Ping",
            "q/a b",
            "q/ä",
            &long,
            "sensor/1",
            "$SYS/x",
            "c/AZjzwgAAcACAAAAAAAAAAQ/messages",
        ] {
            assert_eq!(
                PublishTopic::parse(name),
                Err(TopicError::NotGranted),
                "{name}"
            );
        }
    }

    #[test]
    fn filters_cover_what_they_say() {
        let covers = |filter: &str, leaf| Filter::parse(filter).unwrap().covers(&id(), leaf);
        assert!(covers("c/#", Leaf::Messages) && covers("c/#", Leaf::Receipts));
        assert!(covers("c/+/messages", Leaf::Messages) && !covers("c/+/messages", Leaf::Receipts));
        assert!(covers(&format!("c/{}/+", id()), Leaf::Typing));
        assert!(!covers(
            &format!("c/{}/messages", ConversationId::random()),
            Leaf::Messages
        ));
        assert!(!covers("me/#", Leaf::Messages));
        assert_eq!(Filter::parse("c/+/receipts").unwrap().log(), None);
        assert_eq!(Filter::parse("c/#").unwrap().log(), Some(Level::Any));
    }

    #[test]
    fn filters_cover_what_is_for_one_device() {
        let covers = |filter: &str, topic| Filter::parse(filter).unwrap().covers_mine(topic);
        for filter in ["me/#", "me/+", "me/device"] {
            assert!(covers(filter, ME_DEVICE), "{filter}");
        }
        assert!(covers("me/#", "me/answers/7") && covers("me/+", "me/answers"));
        assert!(!covers("me/+", "me/answers/7") && !covers("me/device", "me/answers"));
        for topic in [ME_INBOX, ME_PRESENCE] {
            assert!(covers(topic, topic) && covers("me/#", topic) && !covers("me/device", topic));
        }
        assert!(!covers(ME_INBOX, ME_PRESENCE) && !covers(ME_PRESENCE, ME_INBOX));
        assert!(!covers("me/#", "me") && !covers("c/#", "me/x"));
    }

    #[test]
    fn filters_that_are_no_filters() {
        for filter in [
            "",
            "c/#/messages",
            "c/a#",
            "a+",
            "c/+x/messages",
            "c/\0/messages",
        ] {
            assert_eq!(
                Filter::parse(filter),
                Err(TopicError::InvalidFilter),
                "{filter}"
            );
        }
        for filter in [
            "#",
            "+/+/messages",
            "sensor/#",
            "$SYS/#",
            "c/+/send",
            "c",
            "c/+",
        ] {
            assert_eq!(
                Filter::parse(filter),
                Err(TopicError::NotGranted),
                "{filter}"
            );
        }
    }
}
