//! rumqttc, MQTT 3.1.1.

use rumqttc::{
    AsyncClient, ConnAck, ConnectReturnCode, ConnectionError, Event, EventLoop, MqttOptions,
    Packet, QoS,
};
use serde_json::Value;
use sqlx::PgPool;

use super::{MISSED, Stage, entry, message};
use crate::harness::within;

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn rumqttc_of_mqtt_3_lives_the_story(pool: PgPool) {
    let stage = Stage::set(&pool).await;
    let refused = Client::open(&stage, "alice", "not a token").await;
    let Err(ConnectionError::ConnectionRefused(code)) = refused else {
        panic!("a bad token connects");
    };
    assert_eq!(code, ConnectReturnCode::BadUserNamePassword);

    let (alice_token, bob_token) = (stage.broker.token("alice"), stage.broker.token("bob"));
    let (mut bob, connack) = Client::open(&stage, "bob", &bob_token).await.unwrap();
    assert!(!connack.session_present);
    bob.subscribe("c/#").await;

    let (mut alice, _) = Client::open(&stage, "alice", &alice_token).await.unwrap();
    alice.subscribe("me/device").await;
    alice.publish(&stage.send_topic(), "live").await;
    assert_eq!(bob.entry().await, (1, "live".into()));
    bob.leave().await;

    for id in MISSED {
        alice.publish(&stage.send_topic(), id).await;
    }
    let (mut bob, connack) = Client::open(&stage, "bob", &bob_token).await.unwrap();
    assert!(connack.session_present);
    for (number, id) in (2..).zip(MISSED) {
        assert_eq!(bob.entry().await, (number, id.into()));
    }
    alice.publish(&stage.send_topic(), "last").await;
    assert_eq!(bob.entry().await, (7, "last".into()));

    let event = alice.refused(&stage.foreign_topic(), "refused").await;
    assert_eq!(
        (&event["event"], &event["id"], &event["code"]),
        (&"refused".into(), &"refused".into(), &0x87.into())
    );
    bob.leave().await;
    alice.leave().await;
    stage.end().await;
}

/// MQTT 3.1.1 has no properties: what belongs together has the same `correlation`.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn rumqttc_of_mqtt_3_asks_and_is_answered(pool: PgPool) {
    let stage = Stage::set(&pool).await;
    let token = stage.broker.token("alice");
    let (mut alice, _) = Client::open(&stage, "alice", &token).await.unwrap();
    alice.subscribe("me/device").await;
    for number in 0..3 {
        let arguments = serde_json::json!({
            "conversation": stage.conversation, "correlation": number,
        });
        let publish = alice.client.publish(
            "q/conversation",
            QoS::AtLeastOnce,
            false,
            arguments.to_string(),
        );
        publish.await.unwrap();
        let answer = alice.event().await;
        assert_eq!(answer["correlation"], number);
        assert_eq!(answer["body"]["id"], *stage.conversation);
        alice
            .until(|packet| matches!(packet, Packet::PubAck(_)).then_some(()))
            .await;
    }
    alice.leave().await;
    stage.broker.stop().await;
}

struct Client {
    client: AsyncClient,
    events: EventLoop,
}

impl Client {
    async fn open(
        stage: &Stage,
        user: &str,
        token: &str,
    ) -> Result<(Self, ConnAck), ConnectionError> {
        let mut options = MqttOptions::new("rumqttc", "127.0.0.1", stage.broker.mqtt().port());
        options
            .set_credentials(user, token)
            .set_clean_session(false);
        let (client, mut events) = AsyncClient::new(options, 8);
        loop {
            if let Event::Incoming(Packet::ConnAck(connack)) =
                within("CONNACK", events.poll()).await?
            {
                return Ok((Self { client, events }, connack));
            }
        }
    }

    async fn subscribe(&mut self, filter: &str) {
        self.client
            .subscribe(filter, QoS::AtLeastOnce)
            .await
            .unwrap();
        self.until(|packet| matches!(packet, Packet::SubAck(_)).then_some(()))
            .await;
    }

    async fn publish(&mut self, topic: &str, id: &str) {
        self.begin_publish(topic, id).await;
        self.acknowledged().await;
    }

    /// Publishes what is refused: that is said before it is acknowledged.
    async fn refused(&mut self, topic: &str, id: &str) -> Value {
        self.begin_publish(topic, id).await;
        let event = self.event().await;
        self.acknowledged().await;
        event
    }

    async fn begin_publish(&mut self, topic: &str, id: &str) {
        let publish = self
            .client
            .publish(topic, QoS::AtLeastOnce, false, message(id));
        publish.await.unwrap();
    }

    async fn acknowledged(&mut self) {
        self.until(|packet| matches!(packet, Packet::PubAck(_)).then_some(()))
            .await;
    }

    async fn entry(&mut self) -> (i64, String) {
        self.until(|packet| match packet {
            Packet::Publish(publish) if publish.qos == QoS::AtLeastOnce => {
                Some(entry(&publish.payload))
            }
            _ => None,
        })
        .await
    }

    async fn event(&mut self) -> Value {
        self.until(|packet| match packet {
            Packet::Publish(publish) if publish.topic == "me/device" => {
                serde_json::from_slice(&publish.payload).ok()
            }
            _ => None,
        })
        .await
    }

    async fn until<T>(&mut self, wanted: impl Fn(Packet) -> Option<T>) -> T {
        loop {
            let event = within("a packet", self.events.poll()).await.unwrap();
            if let Event::Incoming(packet) = event
                && let Some(found) = wanted(packet)
            {
                return found;
            }
        }
    }

    /// Says goodbye, acknowledgements before it, and waits for the server to close.
    async fn leave(mut self) {
        self.client.disconnect().await.unwrap();
        while within("the end", self.events.poll()).await.is_ok() {}
    }
}
