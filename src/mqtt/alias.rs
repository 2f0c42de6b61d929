//! Topic aliases, both ways. [MQTT 5, 3.3.2.3.4]

use crate::domain::ids::ConversationId;

/// The aliases a client has set towards the server.
#[derive(Debug, Default)]
pub struct AliasesIn {
    topics: Vec<Option<String>>,
}

/// An alias is 0, above the maximum, or was never set. [MQTT-3.3.2-8], [MQTT-3.3.2-9]
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the topic alias is unknown or out of range")]
pub struct InvalidAlias;

impl AliasesIn {
    /// The topic a PUBLISH is for. A topic with an alias sets the alias.
    ///
    /// # Errors
    ///
    /// [`InvalidAlias`]: the connection cannot go on.
    pub fn resolve(
        &mut self,
        topic: String,
        alias: Option<u16>,
        alias_max: u16,
    ) -> Result<String, InvalidAlias> {
        let Some(alias) = alias else { return Ok(topic) };
        if alias == 0 || alias > alias_max {
            return Err(InvalidAlias);
        }
        let place = usize::from(alias - 1);
        if topic.is_empty() {
            return self
                .topics
                .get(place)
                .cloned()
                .flatten()
                .ok_or(InvalidAlias);
        }
        if self.topics.len() <= place {
            self.topics.resize(place + 1, None);
        }
        self.topics[place] = Some(topic.clone());
        Ok(topic)
    }
}

/// The aliases the server has set towards a client: the conversations that spoke last.
#[derive(Debug, Default)]
pub struct AliasesOut {
    conversations: Vec<ConversationId>,
    alias_max: u16,
    replaced_next: usize,
}

/// How the topic of a delivery is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// In full, without an alias.
    Plain,
    /// In full, and setting this alias.
    Setting(u16),
    /// As this alias alone.
    Alias(u16),
}

impl AliasesOut {
    /// For a client that takes `alias_max` aliases.
    #[must_use]
    pub fn new(alias_max: u16) -> Self {
        Self {
            conversations: Vec::new(),
            alias_max,
            replaced_next: 0,
        }
    }

    /// A delivery that would have set an alias was written without it.
    pub fn forget(&mut self, conversation: ConversationId) {
        let nobody = ConversationId(uuid::Uuid::nil());
        self.conversations
            .iter_mut()
            .filter(|known| **known == conversation)
            .for_each(|known| *known = nobody);
    }

    /// How the next delivery of a conversation names its topic.
    pub fn write(&mut self, conversation: ConversationId) -> Written {
        if let Some(place) = self
            .conversations
            .iter()
            .position(|known| *known == conversation)
        {
            return Written::Alias(number(place));
        }
        if self.alias_max == 0 {
            return Written::Plain;
        }
        if self.conversations.len() < usize::from(self.alias_max) {
            self.conversations.push(conversation);
            return Written::Setting(number(self.conversations.len() - 1));
        }
        let place = self.replaced_next;
        self.replaced_next = (place + 1) % self.conversations.len();
        self.conversations[place] = conversation;
        Written::Setting(number(place))
    }
}

fn number(place: usize) -> u16 {
    u16::try_from(place + 1).expect("there are at most 65,535 aliases")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_stands_for_the_topic_that_set_it() {
        let mut aliases = AliasesIn::default();
        assert_eq!(aliases.resolve("a".into(), Some(2), 2), Ok("a".into()));
        assert_eq!(aliases.resolve(String::new(), Some(2), 2), Ok("a".into()));
        assert_eq!(aliases.resolve("b".into(), Some(2), 2), Ok("b".into()));
        assert_eq!(aliases.resolve(String::new(), Some(2), 2), Ok("b".into()));
        for (topic, alias) in [("", 1), ("c", 0), ("c", 3)] {
            assert_eq!(
                aliases.resolve(topic.into(), Some(alias), 2),
                Err(InvalidAlias)
            );
        }
    }

    #[test]
    fn a_new_conversation_takes_the_oldest_alias() {
        let mut aliases = AliasesOut::new(2);
        let ids = [
            ConversationId::random(),
            ConversationId::random(),
            ConversationId::random(),
        ];
        assert_eq!(aliases.write(ids[0]), Written::Setting(1));
        assert_eq!(aliases.write(ids[0]), Written::Alias(1));
        assert_eq!(aliases.write(ids[1]), Written::Setting(2));
        assert_eq!(aliases.write(ids[2]), Written::Setting(1));
        assert_eq!(aliases.write(ids[0]), Written::Setting(2));
        assert_eq!(AliasesOut::new(0).write(ids[0]), Written::Plain);
    }
}
