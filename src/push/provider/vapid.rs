//! VAPID (RFC 8292): who sends, stated to each push service and signed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use serde::Serialize;

use super::keys::P256Key;

/// What a statement is valid for; RFC 8292 §2 allows a day.
const LIFETIME_SECONDS: i64 = 12 * 60 * 60;
/// It is renewed when half of that is over.
const USED_SECONDS: i64 = LIFETIME_SECONDS / 2;
/// Push services are few; devices could name any number.
const ORIGINS_MAX: usize = 256;

/// Signs for each push service, seldom. Times are in seconds since 1970.
pub(super) struct Vapid {
    subject: String,
    signed: Mutex<HashMap<String, Signed>>,
}

struct Signed {
    authorization: Arc<str>,
    since_unix: i64,
    key: Arc<P256Key>,
}

#[derive(Serialize)]
struct Claims<'a> {
    aud: &'a str,
    exp: i64,
    sub: &'a str,
}

impl Vapid {
    pub(super) fn new(subject: &str) -> Self {
        Self {
            subject: subject.to_owned(),
            signed: Mutex::default(),
        }
    }

    /// The value of the Authorization header for the push service at this origin.
    pub(super) fn authorization(
        &self,
        key: &Arc<P256Key>,
        origin: &str,
        now_unix: i64,
    ) -> jsonwebtoken::errors::Result<Arc<str>> {
        let signed = self.signed.lock();
        let mut signed = signed.unwrap_or_else(PoisonError::into_inner);
        if let Some(signed) = signed.get(origin)
            && Arc::ptr_eq(&signed.key, key)
            && (0..USED_SECONDS).contains(&(now_unix - signed.since_unix))
        {
            return Ok(Arc::clone(&signed.authorization));
        }
        let claims = Claims {
            aud: origin,
            exp: now_unix + LIFETIME_SECONDS,
            sub: &self.subject,
        };
        let token = key.sign(None, &claims)?;
        let authorization: Arc<str> = format!("vapid t={token}, k={}", key.public).into();
        if signed.len() >= ORIGINS_MAX {
            signed.clear();
        }
        signed.insert(
            origin.to_owned(),
            Signed {
                authorization: Arc::clone(&authorization),
                since_unix: now_unix,
                key: Arc::clone(key),
            },
        );
        Ok(authorization)
    }
}

#[cfg(test)]
mod tests {
    use rcgen::KeyPair;

    use super::*;

    const NOW_UNIX: i64 = 1_800_000_000;

    fn key() -> Arc<P256Key> {
        let pem = KeyPair::generate().unwrap().serialize_pem();
        Arc::new(P256Key::from_pem(pem.as_bytes()).unwrap())
    }

    #[test]
    fn a_statement_serves_one_push_service_and_one_key_for_hours() {
        let (vapid, key) = (Vapid::new("mailto:push@example.com"), key());
        let at = |origin: &str, seconds| {
            let authorization = vapid.authorization(&key, origin, NOW_UNIX + seconds);
            authorization.unwrap()
        };
        let first = at("https://a.example", 0);
        assert_eq!(at("https://a.example", USED_SECONDS - 1), first);
        assert_ne!(at("https://b.example", 0), first);
        let second = at("https://a.example", USED_SECONDS);
        assert_ne!(second, first);
        let now = NOW_UNIX + USED_SECONDS;
        let other = vapid.authorization(&self::key(), "https://a.example", now);
        assert_ne!(other.unwrap(), second);
    }

    #[test]
    fn the_number_of_push_services_remembered_is_bounded() {
        let (vapid, key) = (Vapid::new("mailto:push@example.com"), key());
        for number in 0..=ORIGINS_MAX {
            let origin = format!("https://{number}.example");
            vapid.authorization(&key, &origin, NOW_UNIX).unwrap();
        }
        assert!(vapid.signed.lock().unwrap().len() <= ORIGINS_MAX);
    }
}
