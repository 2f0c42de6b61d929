//! How payloads are written on the wire to a device, and by it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The name of the user property of CONNECT and CONNACK.
pub const FORMAT_PROPERTY: &str = "format";

/// The format of the payloads of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "server", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum WireFormat {
    #[default]
    Json,
    /// With numbers for the names of members: see [`super::cbor`].
    Cbor,
}

/// A text that names no format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a format is `json` or `cbor`")]
pub struct InvalidFormat;

impl WireFormat {
    /// As it is stored and told.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Cbor => "cbor",
        }
    }
}

impl fmt::Display for WireFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WireFormat {
    type Err = InvalidFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "cbor" => Ok(Self::Cbor),
            _ => Err(InvalidFormat),
        }
    }
}
