//! What new conversations begin with.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Settings of new conversations.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ConversationConfig {
    pub history_depth: HistoryDepth,
}

/// How many entries before their own beginning newcomers may see; in the file a number in
/// quotes, or "all".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryDepth(Option<u32>);

impl HistoryDepth {
    /// The number; none is all of them.
    #[must_use]
    pub fn entries(self) -> Option<i64> {
        self.0.map(i64::from)
    }
}

impl FromStr for HistoryDepth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "all" => Ok(Self(None)),
            number => number
                .parse()
                .map(|number| Self(Some(number)))
                .map_err(|_| "history_depth is a number of entries, or \"all\"".to_owned()),
        }
    }
}

impl fmt::Display for HistoryDepth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "{number}"),
            None => f.write_str("all"),
        }
    }
}

impl<'de> Deserialize<'de> for HistoryDepth {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for HistoryDepth {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depth_is_a_number_or_all() {
        let entries = |text: &str| text.parse().map(HistoryDepth::entries);
        assert_eq!(entries("0"), Ok(Some(0)));
        assert_eq!(entries("100"), Ok(Some(100)));
        assert_eq!(entries("all"), Ok(None));
        assert!(entries("").is_err() && entries("-1").is_err() && entries("every").is_err());
    }
}
