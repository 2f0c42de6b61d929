//! The subscriptions of one session.

use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

use super::packet::QoS;
use crate::domain::{
    ids::ConversationId,
    topic::{Filter, Leaf, Level, TopicError},
};

/// One granted filter, as it is stored with the session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Stored", try_from = "Stored")]
pub struct Subscription {
    /// The filter as the client wrote it: what UNSUBSCRIBE must name.
    pub text: Box<str>,
    pub filter: Filter,
    pub qos: QoS,
    pub no_local: bool,
    pub identifier: Option<NonZeroU32>,
}

/// The JSON of a [`Subscription`].
#[derive(Serialize, Deserialize)]
struct Stored {
    filter: Box<str>,
    qos: u8,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    no_local: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<NonZeroU32>,
}

impl From<Subscription> for Stored {
    fn from(subscription: Subscription) -> Self {
        Self {
            filter: subscription.text,
            qos: subscription.qos as u8,
            no_local: subscription.no_local,
            id: subscription.identifier,
        }
    }
}

impl TryFrom<Stored> for Subscription {
    type Error = TopicError;

    fn try_from(stored: Stored) -> Result<Self, TopicError> {
        let filter = Filter::parse(&stored.filter)?;
        let qos = if stored.qos == 0 {
            QoS::AtMostOnce
        } else {
            QoS::AtLeastOnce
        };
        let Stored {
            filter: text,
            no_local,
            id: identifier,
            ..
        } = stored;
        Ok(Self {
            text,
            filter,
            qos,
            no_local,
            identifier,
        })
    }
}

/// Which conversations' logs a set of subscriptions covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coverage {
    All,
    Only(Vec<ConversationId>),
}

/// How a message reaches a device, all subscriptions that cover it taken together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The highest QoS granted. [MQTT-3.3.4-2]
    pub qos: QoS,
    /// Whether every subscription that covers it has the No Local option.
    pub no_local: bool,
}

/// The subscriptions of one session; a handful, so a list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Subscriptions(Vec<Subscription>);

impl Subscriptions {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this filter, as text, is among them.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        self.0.iter().any(|known| &*known.text == text)
    }

    /// Adds one, or replaces the one with the same filter. [MQTT-3.8.4-3]
    pub fn insert(&mut self, subscription: Subscription) {
        match self
            .0
            .iter_mut()
            .find(|known| known.text == subscription.text)
        {
            Some(known) => *known = subscription,
            None => self.0.push(subscription),
        }
        self.0.shrink_to_fit();
    }

    /// Removes one; says whether it was there.
    pub fn remove(&mut self, text: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|known| &*known.text != text);
        self.0.len() < before
    }

    /// The conversations whose messages are covered.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        let mut only = Vec::new();
        for subscription in &self.0 {
            match subscription.filter.log() {
                Some(Level::Any) => return Coverage::All,
                Some(Level::One(conversation)) if !only.contains(&conversation) => {
                    only.push(conversation);
                }
                _ => {}
            }
        }
        Coverage::Only(only)
    }

    /// How something of a conversation reaches the device; not at all without a route.
    #[must_use]
    pub fn route(&self, conversation: &ConversationId, leaf: Leaf) -> Option<Route> {
        self.covering(conversation, leaf)
            .fold(None, |route: Option<Route>, subscription| {
                Some(Route {
                    qos: route
                        .as_ref()
                        .map_or(subscription.qos, |route| route.qos.max(subscription.qos)),
                    no_local: route.is_none_or(|route| route.no_local) && subscription.no_local,
                })
            })
    }

    /// The identifiers of all subscriptions that cover it. [MQTT-3.3.4-4]
    pub fn identifiers(
        &self,
        conversation: &ConversationId,
        leaf: Leaf,
    ) -> impl Iterator<Item = NonZeroU32> {
        self.covering(conversation, leaf)
            .filter_map(|subscription| subscription.identifier)
    }

    /// Whether a topic that begins with `me/` is wanted.
    #[must_use]
    pub fn cover_mine(&self, topic: &str) -> bool {
        self.covering_mine(topic).next().is_some()
    }

    /// The identifiers of all subscriptions that cover a topic which begins with `me/`.
    pub fn identifiers_mine(&self, topic: &str) -> impl Iterator<Item = NonZeroU32> {
        self.covering_mine(topic)
            .filter_map(|subscription| subscription.identifier)
    }

    fn covering_mine(&self, topic: &str) -> impl Iterator<Item = &Subscription> {
        self.0
            .iter()
            .filter(move |subscription| subscription.filter.covers_mine(topic))
    }

    fn covering(
        &self,
        conversation: &ConversationId,
        leaf: Leaf,
    ) -> impl Iterator<Item = &Subscription> {
        self.0
            .iter()
            .filter(move |subscription| subscription.filter.covers(conversation, leaf))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subscription(text: &str, qos: QoS, no_local: bool, id: u32) -> Subscription {
        let filter = Filter::parse(text).unwrap();
        let identifier = NonZeroU32::new(id);
        Subscription {
            text: text.into(),
            filter,
            qos,
            no_local,
            identifier,
        }
    }

    #[test]
    fn overlapping_subscriptions_deliver_once_with_the_highest_qos() {
        let id = ConversationId::random();
        let mut all = Subscriptions::default();
        all.insert(subscription("c/#", QoS::AtMostOnce, true, 1));
        all.insert(subscription(
            &format!("c/{id}/messages"),
            QoS::AtLeastOnce,
            false,
            2,
        ));
        let route = all.route(&id, Leaf::Messages).unwrap();
        assert_eq!(
            route,
            Route {
                qos: QoS::AtLeastOnce,
                no_local: false
            }
        );
        let identifiers: Vec<_> = all
            .identifiers(&id, Leaf::Messages)
            .map(NonZeroU32::get)
            .collect();
        assert_eq!(identifiers, [1, 2]);
        assert_eq!(all.coverage(), Coverage::All);
        assert!(all.remove("c/#") && !all.remove("c/#"));
        assert_eq!(all.coverage(), Coverage::Only(vec![id]));
    }

    #[test]
    fn subscriptions_survive_their_storage() {
        let mut all = Subscriptions::default();
        all.insert(subscription("c/#", QoS::AtLeastOnce, true, 9));
        all.insert(subscription("me/#", QoS::AtMostOnce, false, 0));
        let stored = serde_json::to_value(&all).unwrap();
        assert_eq!(
            serde_json::from_value::<Subscriptions>(stored).unwrap(),
            all
        );
        assert!(all.cover_mine("me/device"));
    }
}
