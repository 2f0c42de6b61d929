//! Payloads as the device writes and reads them. Everything else in here knows JSON.

use std::borrow::Cow;

use bytes::Bytes;

use super::Session;
use crate::domain::{
    cbor::{self, CborError, Document},
    format::WireFormat,
    message::LogEntry,
    push::Activity,
    topic::PublishTopic,
};

impl Session {
    /// What the device sent, as JSON. `is_text`: it says that it is that already.
    pub(super) fn read_payload(
        &self,
        topic: &PublishTopic,
        payload: Bytes,
        is_text: bool,
    ) -> Result<Bytes, CborError> {
        let document = match topic {
            PublishTopic::Request(_) => Document::Answer,
            _ => Document::Entry,
        };
        let is_word =
            matches!(topic, PublishTopic::State) && Activity::from_payload(&payload).is_ok();
        if self.format == WireFormat::Json || payload.is_empty() || is_text || is_word {
            return Ok(payload);
        }
        cbor::to_json(&payload, document).map(Into::into)
    }

    /// JSON as the device reads it.
    pub(super) fn encoded<'a>(&self, topic: &str, json: &'a [u8]) -> Cow<'a, [u8]> {
        match self.format {
            WireFormat::Json => Cow::Borrowed(json),
            WireFormat::Cbor => Cow::Owned(cbor::from_json(json, Document::on(topic))),
        }
    }

    /// An entry as the device reads it: encoded once for all that read it so.
    pub(super) fn encoded_entry<'a>(&self, entry: &'a LogEntry) -> &'a [u8] {
        match self.format {
            WireFormat::Json => &entry.payload,
            WireFormat::Cbor => entry.cbor(),
        }
    }
}
