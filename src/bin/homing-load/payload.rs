//! What is sent, so that whoever receives it knows which message it is and when it was due.
//!
//! ```text
//!   {"id":"5f3a09c2-0000000042-0000001234567890","type":"text","body":"xxxx…"}
//!          run      number     due, in nanoseconds of this run's clock
//! ```
//!
//! The same bytes for every kind of broker. A broker that knows conversations sends
//! `{"seq":N,` in front of the id.

use serde::Deserialize;

use crate::{clock::Nanos, wire};

const BEFORE_ID: &[u8] = b"{\"id\":\"";
const BEFORE_SEQUENCE: &[u8] = b"{\"seq\":";
const AFTER_SEQUENCE: &[u8] = b",\"id\":\"";
const NUMBER_DIGITS: usize = 10;
const DUE_DIGITS: usize = 16;

/// The name of one run, 8 characters.
pub(crate) type Run = [u8; 8];

/// A PUBLISH that is the same for all messages of one topic but for a few digits.
#[derive(Debug)]
pub(crate) struct Template {
    packet: Vec<u8>,
    packet_id_at: usize,
    number_at: usize,
    due_at: usize,
}

impl Template {
    pub(crate) fn new(topic: &str, run: Run, body_bytes: usize) -> Self {
        let run = String::from_utf8_lossy(&run);
        let body = "x".repeat(body_bytes);
        let id = format!("{run}-{:0NUMBER_DIGITS$}-{:0DUE_DIGITS$}", 0, 0);
        let payload = format!(r#"{{"id":"{id}","type":"text","body":"{body}"}}"#);
        let (packet, packet_id_at, payload_at) = wire::publish(topic, payload.as_bytes());
        let number_at = payload_at + BEFORE_ID.len() + run.len() + 1;
        Self {
            packet,
            packet_id_at,
            number_at,
            due_at: number_at + NUMBER_DIGITS + 1,
        }
    }

    /// Appends the PUBLISH of message `number`, due at `due`.
    pub(crate) fn write(&mut self, out: &mut Vec<u8>, packet_id: u16, number: u64, due: Nanos) {
        self.packet[self.packet_id_at..][..2].copy_from_slice(&packet_id.to_be_bytes());
        write_digits(&mut self.packet[self.number_at..][..NUMBER_DIGITS], number);
        write_digits(&mut self.packet[self.due_at..][..DUE_DIGITS], due);
        out.extend_from_slice(&self.packet);
    }
}

/// What a payload says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Its place in the conversation, if the broker gives one.
    pub(crate) sequence: Option<u64>,
    /// Nothing if it is not a message of this run.
    pub(crate) message: Option<Message>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) number: u64,
    pub(crate) due: Nanos,
}

/// Reads a payload; nothing if it is no message at all.
pub(crate) fn read(payload: &[u8], run: Run) -> Option<Mark> {
    read_prefix(payload, run).or_else(|| read_json(payload, run))
}

/// The usual order of members, without looking at the rest.
fn read_prefix(payload: &[u8], run: Run) -> Option<Mark> {
    let (sequence, rest) = match payload.strip_prefix(BEFORE_SEQUENCE) {
        Some(rest) => {
            let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (digits, rest) = rest.split_at(digits);
            (
                Some(read_digits(digits)?),
                rest.strip_prefix(AFTER_SEQUENCE)?,
            )
        }
        None => (None, payload.strip_prefix(BEFORE_ID)?),
    };
    let id = rest.get(..run.len() + 1 + NUMBER_DIGITS + 1 + DUE_DIGITS)?;
    Some(Mark {
        sequence,
        message: Some(read_id(id, run)?),
    })
}

#[derive(Deserialize)]
struct Entry<'a> {
    seq: Option<u64>,
    id: &'a str,
}

fn read_json(payload: &[u8], run: Run) -> Option<Mark> {
    let entry: Entry<'_> = serde_json::from_slice(payload).ok()?;
    Some(Mark {
        sequence: entry.seq,
        message: read_id(entry.id.as_bytes(), run),
    })
}

fn read_id(id: &[u8], run: Run) -> Option<Message> {
    let rest = id.strip_prefix(&run)?.strip_prefix(b"-")?;
    let (number, rest) = rest.split_at_checked(NUMBER_DIGITS)?;
    let due = rest.strip_prefix(b"-")?;
    Some(Message {
        number: read_digits(number)?,
        due: read_digits(due)?,
    })
}

fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn read_digits(digits: &[u8]) -> Option<u64> {
    let value = |number: u64, digit: &u8| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    };
    (!digits.is_empty()).then(|| digits.iter().try_fold(0, value))?
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Run = *b"5f3a09c2";

    fn payload(number: u64, due: Nanos) -> String {
        let mut template = Template::new("t", RUN, 3);
        let mut out = Vec::new();
        template.write(&mut out, 7, 1, 1);
        out.clear();
        template.write(&mut out, 8, number, due);
        assert_eq!(out[5..7], [0, 8]);
        String::from_utf8(out.split_off(7)).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let payload = payload(42, 1_234_567_890);
        let json: serde_json::Value = serde_json::from_str(&payload).unwrap();
        assert_eq!(json["body"], "xxx");
        let message = Some(Message {
            number: 42,
            due: 1_234_567_890,
        });
        let read = |payload: &str| read(payload.as_bytes(), RUN);
        assert_eq!(
            read(&payload),
            Some(Mark {
                sequence: None,
                message
            })
        );
        let stored = payload.replacen('{', r#"{"seq":917,"#, 1);
        assert_eq!(
            read(&stored),
            Some(Mark {
                sequence: Some(917),
                message
            })
        );
        let other_order = stored.replacen('{', r#"{"at":5,"#, 1);
        assert_eq!(
            read(&other_order),
            Some(Mark {
                sequence: Some(917),
                message
            })
        );
    }

    #[test]
    fn what_is_not_ours_still_has_its_sequence() {
        let other = br#"{"seq":3,"id":"0198f3c2","type":"homing.membership","body":{}}"#;
        assert_eq!(
            read(other, RUN),
            Some(Mark {
                sequence: Some(3),
                message: None
            })
        );
        assert_eq!(read(b"hello", RUN), None);
    }
}
