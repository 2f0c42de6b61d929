//! One session at a time, with a virtual clock.

mod mine;
mod requests;
mod silence;

use std::{
    num::NonZeroU16,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rmqtt_codec::v5;
use tokio_util::codec::Decoder as _;

use super::{Action, Identity, Limits, Remembered, Session};
use crate::{
    domain::{
        ids::{ConversationId, DeviceId},
        message::{LogEntry, Position, Sequence, SharedEntry},
    },
    mqtt::packet::{Connect, Packet, PacketId, QoS, Subscribe, SubscribeRequest, Version},
};

const GRACE: Duration = Duration::from_secs(8);

/// A session whose time stands still unless it is told.
struct Stage {
    session: Session,
    now: Instant,
}

impl Stage {
    /// MQTT 5 without a keep-alive, a token that ends, or a session that outlives it: nothing
    /// but what a test looks at has a moment.
    #[expect(clippy::disallowed_methods, reason = "an Instant has no other origin")]
    fn open(version: Version) -> Self {
        let now = Instant::now();
        Self::open_with(&connect(version), now)
    }

    fn open_with(connect: &Connect, now: Instant) -> Self {
        let identity = Identity {
            device: DeviceId(1),
            token_expires: None,
        };
        let remembered = Remembered::default();
        let limits = Arc::new(limits());
        let session = Session::open(connect, identity, remembered, None, limits, now);
        let mut stage = Self { session, now };
        stage.session.keep_alive = None;
        stage.session.output().clear();
        stage
    }

    fn subscribe(&mut self, filter: &str, qos: QoS) {
        let request = SubscribeRequest {
            filter: filter.to_owned(),
            qos,
            no_local: false,
        };
        self.take(Packet::Subscribe(Subscribe {
            packet_id: PacketId::MAX,
            identifier: None,
            requests: vec![request],
        }));
        self.session.output().clear();
    }

    fn take(&mut self, packet: Packet) {
        self.session.handle_packet(packet, self.now);
    }

    /// Time passes, and the driver tells so.
    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.session.handle_timeout(self.now);
    }

    /// A message of the conversation is committed.
    fn commit(&mut self, number: i64) {
        let entry = entry(number);
        self.session
            .handle_notice(entry.position.conversation, number, number, &[entry]);
    }

    fn actions(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.session.poll_action()).collect()
    }

    /// What an MQTT 5 session has put out since the last call, as another decoder reads it.
    fn packets(&mut self) -> Vec<v5::Packet> {
        let mut codec = v5::Codec::new(0, 0);
        let out = self.session.output();
        std::iter::from_fn(|| codec.decode(out).unwrap().map(|(packet, _)| packet)).collect()
    }
}

fn entry(number: i64) -> SharedEntry {
    let position = Position {
        conversation: ConversationId(uuid::Uuid::from_u128(1)),
        sequence: Sequence::new(number).unwrap(),
    };
    Arc::new(LogEntry::new(position, None, Bytes::from_static(b"{}")))
}

fn connect(version: Version) -> Connect {
    Connect {
        version,
        client_id: "phone".to_owned(),
        clean_start: true,
        keep_alive_seconds: 0,
        user_name: None,
        password: None,
        session_expiry_seconds: 0,
        receive_max: NonZeroU16::MAX,
        packet_bytes_max: None,
        topic_alias_max: 0,
        wants_problem_information: true,
        has_will: false,
        has_authentication_method: false,
        format: None,
        asks_for_format: false,
    }
}

fn limits() -> Limits {
    Limits {
        keep_alive_max: Duration::from_mins(1),
        session_expiry_max: Duration::from_hours(1),
        inflight_max: NonZeroU16::new(8).unwrap(),
        receive_max: NonZeroU16::new(16).unwrap(),
        packet_bytes_max: 4096,
        topic_alias_max: 0,
        topic_alias_out_max: 0,
        subscriptions_max: 8,
        outbound_bytes_max: 4096,
        backlog_entries_max: 8,
        publishes_per_second: 0,
        expiry_warning: Duration::from_mins(1),
        suspect_after: GRACE,
    }
}
