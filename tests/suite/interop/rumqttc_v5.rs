//! rumqttc, MQTT 5.

use rumqttc::v5::{
    AsyncClient, ConnectionError, Event, EventLoop, MqttOptions,
    mqttbytes::{
        QoS,
        v5::{
            ConnAck, ConnectProperties, ConnectReturnCode, Packet, PubAck, PubAckReason,
            PublishProperties,
        },
    },
};
use sqlx::PgPool;

use super::{MISSED, Stage, entry, message};
use crate::harness::within;

#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn rumqttc_of_mqtt_5_lives_the_story(pool: PgPool) {
    let stage = Stage::set(&pool).await;
    let refused = Client::open(&stage, "alice", "not a token").await;
    let Err(ConnectionError::ConnectionRefused(code)) = refused else {
        panic!("a bad token connects");
    };
    assert_eq!(code, ConnectReturnCode::BadUserNamePassword);

    let (alice_token, bob_token) = (stage.broker.token("alice"), stage.broker.token("bob"));
    let (mut bob, connack) = Client::open(&stage, "bob", &bob_token).await.unwrap();
    assert!(!connack.session_present);
    bob.client.subscribe("c/#", QoS::AtLeastOnce).await.unwrap();
    bob.until(|packet| matches!(packet, Packet::SubAck(_)).then_some(()))
        .await;

    let (mut alice, _) = Client::open(&stage, "alice", &alice_token).await.unwrap();
    let answer = alice.publish(&stage.send_topic(), "live").await;
    assert_eq!(sequence(&answer), Some("1"));
    assert_eq!(bob.entry().await, (1, "live".into()));
    bob.leave().await;

    for (number, id) in (2..).zip(MISSED) {
        let answer = alice.publish(&stage.send_topic(), id).await;
        assert_eq!(sequence(&answer), Some(&*i64::to_string(&number)));
    }
    let (mut bob, connack) = Client::open(&stage, "bob", &bob_token).await.unwrap();
    assert!(connack.session_present);
    for (number, id) in (2..).zip(MISSED) {
        assert_eq!(bob.entry().await, (number, id.into()));
    }
    alice.publish(&stage.send_topic(), "last").await;
    assert_eq!(bob.entry().await, (7, "last".into()));

    let answer = alice.publish(&stage.foreign_topic(), "refused").await;
    assert_eq!(answer.reason, PubAckReason::NotAuthorized);
    bob.leave().await;
    alice.leave().await;
    stage.end().await;
}

/// Request and response as MQTT 5 has them: a Response Topic, and Correlation Data.
#[sqlx::test(migrator = "homing::store::MIGRATOR")]
async fn rumqttc_of_mqtt_5_asks_and_is_answered(pool: PgPool) {
    let stage = Stage::set(&pool).await;
    let token = stage.broker.token("alice");
    let (mut alice, _) = Client::open(&stage, "alice", &token).await.unwrap();
    alice
        .client
        .subscribe("me/#", QoS::AtLeastOnce)
        .await
        .unwrap();
    alice
        .until(|packet| matches!(packet, Packet::SubAck(_)).then_some(()))
        .await;
    for number in 0..3_u8 {
        let properties = PublishProperties {
            response_topic: Some(format!("me/answers/{number}")),
            correlation_data: Some(vec![0xff, number].into()),
            ..PublishProperties::default()
        };
        let arguments = format!(r#"{{"conversation":"{}"}}"#, stage.conversation);
        let publish = alice.client.publish_with_properties(
            "q/conversation",
            QoS::AtLeastOnce,
            false,
            arguments,
            properties,
        );
        publish.await.unwrap();
        let answer = alice
            .until(|packet| match packet {
                Packet::Publish(publish) => Some(publish),
                _ => None,
            })
            .await;
        assert_eq!(answer.topic, format!("me/answers/{number}"));
        let data = answer.properties.unwrap().correlation_data.unwrap();
        assert_eq!(data, vec![0xff, number]);
        let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["status"], 200);
        assert_eq!(answer["body"]["id"], *stage.conversation);
        let puback = alice.until(|packet| match packet {
            Packet::PubAck(puback) => Some(puback),
            _ => None,
        });
        assert_eq!(puback.await.reason, PubAckReason::Success);
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
        let mut properties = ConnectProperties::new();
        properties.session_expiry_interval = Some(3600);
        options
            .set_credentials(user, token)
            .set_clean_start(false)
            .set_connect_properties(properties);
        let (client, mut events) = AsyncClient::new(options, 8);
        loop {
            if let Event::Incoming(Packet::ConnAck(connack)) =
                within("CONNACK", events.poll()).await?
            {
                return Ok((Self { client, events }, connack));
            }
        }
    }

    async fn publish(&mut self, topic: &str, id: &str) -> PubAck {
        let publish = self
            .client
            .publish(topic, QoS::AtLeastOnce, false, message(id));
        publish.await.unwrap();
        self.until(|packet| match packet {
            Packet::PubAck(answer) => Some(answer),
            _ => None,
        })
        .await
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

fn sequence(answer: &PubAck) -> Option<&str> {
    let properties = &answer.properties.as_ref()?.user_properties;
    let (_, value) = properties.iter().find(|(name, _)| name == "seq")?;
    Some(value)
}
