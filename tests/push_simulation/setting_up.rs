//! Who there is when a world begins.

use std::collections::{BTreeMap, BTreeSet};

use homing::{
    domain::ids::{ConversationId, DeviceId, Subject},
    store::{
        conversations::{self, Kind, NewConversation, Role},
        users,
    },
};
use rand::{Rng as _, rngs::SmallRng, seq::IndexedRandom as _};
use sqlx::PgConnection;

use crate::people::{Conversation, Device, Member, People, User};

/// When everything begins, in milliseconds since 1970: 2033-05-18 03:33:20 UTC.
pub(crate) const START: i64 = 2_000_000_000_000;
pub(crate) const ROUTES: [&str; 2] = [
    "apns:com.example.chat:production",
    "fcm:my-project:production",
];
/// The quiet hours that some users have, in milliseconds: 03:34 to 03:35:30.
const QUIET: (i64, i64) = (40_000, 130_000);

const USERS: usize = 350;
const DEVICES: usize = 1000;
const CONVERSATIONS: usize = 150;

pub(crate) async fn people(conn: &mut PgConnection, rng: &mut SmallRng) -> People {
    let mut people = People::default();
    let names: Vec<_> = (0..USERS)
        .map(|user| Subject::new(&format!("user-{user}")).unwrap())
        .collect();
    let ids = users::ensure(conn, &names).await.unwrap();
    people.users = ids
        .into_iter()
        .zip(names)
        .map(|(id, name)| User {
            id,
            name,
            devices: Vec::new(),
            conversations: Vec::new(),
            quiet: rng.random_bool(0.1).then_some(QUIET),
        })
        .collect();
    for index in 0..DEVICES {
        let user = if index < USERS {
            index
        } else {
            rng.random_range(0..USERS)
        };
        people.users[user].devices.push(index);
        people.devices.push(Device {
            id: DeviceId(0),
            user,
            client_id: format!("device-{index}"),
            connection: None,
            token: format!("token-{index}"),
            is_installed: true,
            acknowledged: BTreeMap::new(),
            written: BTreeMap::new(),
            unwritten: BTreeSet::new(),
            shown: BTreeMap::new(),
        });
    }
    for index in 0..CONVERSATIONS {
        let size = [2, 2, 2, 5, 10, 30].choose(rng).copied().unwrap();
        let members: Vec<_> = rand::seq::index::sample(rng, USERS, size).into_vec();
        for &member in &members {
            people.users[member].conversations.push(index);
        }
        let id = ConversationId(uuid::Uuid::from_u128(1 + index as u128));
        let new = NewConversation {
            id,
            kind: Kind::Group,
            title: None,
            history_depth: Some(0),
            participants: members
                .iter()
                .map(|user| (people.users[*user].id, Role::Member))
                .collect(),
        };
        conversations::create(conn, &new).await.unwrap();
        people.conversations.push(Conversation {
            id,
            head: 0,
            messages: Vec::new(),
            members: members
                .into_iter()
                .map(|user| (user, Member::default()))
                .collect(),
        });
    }
    register(conn, &mut people).await;
    people
}

/// Devices with their sessions and tokens; quiet hours.
async fn register(conn: &mut PgConnection, people: &mut People) {
    let users: Vec<_> = people
        .devices
        .iter()
        .map(|device| people.users[device.user].id.0)
        .collect();
    let names: Vec<_> = people
        .devices
        .iter()
        .map(|device| device.client_id.clone())
        .collect();
    let ids: Vec<(String, i64)> = sqlx::query_as(
        "insert into devices (user_id, client_id) select * from unnest($1::bigint[], $2::text[])
         returning client_id, device_id",
    )
    .bind(&users)
    .bind(&names)
    .fetch_all(&mut *conn)
    .await
    .unwrap();
    let ids: std::collections::HashMap<_, _> = ids.into_iter().collect();
    for device in &mut people.devices {
        device.id = DeviceId(ids[&device.client_id]);
    }
    for text in [
        "insert into sessions (device_id) select device_id from devices",
        "insert into push_tokens (device_id, user_id, provider, app, token, registered_at)
         select device_id, user_id, case device_id % 2 when 0 then 'apns' else 'fcm' end,
                case device_id % 2 when 0 then 'com.example.chat' else 'my-project' end,
                replace(client_id, 'device', 'token'), to_timestamp(1999999999) from devices",
    ] {
        sqlx::query(text).execute(&mut *conn).await.unwrap();
    }
    let quiet: Vec<_> = people
        .users
        .iter()
        .filter(|user| user.quiet.is_some())
        .map(|user| user.id.0)
        .collect();
    sqlx::query(
        "update users set quiet_from = '03:34', quiet_until = '03:35:30', quiet_zone = 'UTC'
         where user_id = any($1)",
    )
    .bind(&quiet)
    .execute(conn)
    .await
    .unwrap();
}
