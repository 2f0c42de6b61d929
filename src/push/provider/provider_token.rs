//! The provider token of APNs: a signed statement of who we are, shared by all notifications.
//!
//! Apple wants it renewed not more often than every 20 minutes, and at least every 60.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::keys::P256Key;

const LIFETIME_SECONDS: i64 = 40 * 60;
/// Tokens that are refused are not all replaced at once, lest Apple refuse us for that.
const REPLACED_INTERVAL_SECONDS: i64 = 20 * 60;
/// Our clock was set back by more than this: the token comes from the future.
const BACKWARD_SECONDS: i64 = 60;

/// Signs tokens, seldom. Times are in seconds since 1970.
pub(super) struct ProviderTokens {
    key_id: String,
    team_id: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<ProviderToken>,
    replaced_at: Option<i64>,
}

/// A signed token.
#[derive(Clone)]
pub(super) struct ProviderToken {
    pub(super) text: Arc<str>,
    /// By our clock, whatever the token says.
    signed_at: i64,
    key: Arc<P256Key>,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    iat: i64,
}

impl ProviderTokens {
    pub(super) fn new(key_id: &str, team_id: &str) -> Self {
        Self {
            key_id: key_id.to_owned(),
            team_id: team_id.to_owned(),
            state: Mutex::default(),
        }
    }

    /// The token of now. All who come at once get the same.
    pub(super) fn current(
        &self,
        key: &Arc<P256Key>,
        now_unix: i64,
    ) -> jsonwebtoken::errors::Result<ProviderToken> {
        let state = self.state.lock();
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = &state.token
            && Arc::ptr_eq(&token.key, key)
            && (-BACKWARD_SECONDS..LIFETIME_SECONDS).contains(&(now_unix - token.signed_at))
        {
            return Ok(token.clone());
        }
        let token = self.sign(key, now_unix, now_unix)?;
        Ok(state.token.insert(token).clone())
    }

    /// Another token than the refused one, if there is one already, or if none was replaced
    /// lately. `issued_at` is what the token says, by the provider's clock.
    pub(super) fn instead_of(
        &self,
        refused: &ProviderToken,
        now_unix: i64,
        issued_at: i64,
    ) -> Option<ProviderToken> {
        let state = self.state.lock();
        let mut state = state.unwrap_or_else(PoisonError::into_inner);
        match &state.token {
            Some(token) if token.text != refused.text => return Some(token.clone()),
            _ => {}
        }
        let is_early = state
            .replaced_at
            .is_some_and(|then| (now_unix - then).abs() < REPLACED_INTERVAL_SECONDS);
        if is_early {
            return None;
        }
        let token = self.sign(&refused.key, now_unix, issued_at).ok()?;
        state.replaced_at = Some(now_unix);
        Some(state.token.insert(token).clone())
    }

    fn sign(
        &self,
        key: &Arc<P256Key>,
        signed_at: i64,
        issued_at: i64,
    ) -> jsonwebtoken::errors::Result<ProviderToken> {
        let claims = Claims {
            iss: &self.team_id,
            iat: issued_at,
        };
        Ok(ProviderToken {
            text: key.sign(Some(&self.key_id), &claims)?.into(),
            signed_at,
            key: Arc::clone(key),
        })
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

    fn tokens() -> ProviderTokens {
        ProviderTokens::new("ABC123DEFG", "DEF123GHIJ")
    }

    fn part(token: &ProviderToken, part: usize) -> serde_json::Value {
        use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
        let text = token.text.split('.').nth(part).unwrap();
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).unwrap()).unwrap()
    }

    #[test]
    fn a_token_says_who_signed_and_when() {
        let token = tokens().current(&key(), NOW_UNIX).unwrap();
        let header = part(&token, 0);
        assert_eq!(header["alg"], "ES256");
        assert_eq!(header["kid"], "ABC123DEFG");
        let claims = serde_json::json!({ "iss": "DEF123GHIJ", "iat": NOW_UNIX });
        assert_eq!(part(&token, 1), claims);
        assert!(!token.text.contains('='));
    }

    #[test]
    fn a_token_serves_forty_minutes() {
        let (tokens, key) = (tokens(), key());
        let at = |seconds: i64| tokens.current(&key, NOW_UNIX + seconds).unwrap().text;
        let first = at(0);
        assert_eq!(at(2399), first);
        assert_eq!(at(-60), first);
        let second = at(2400);
        assert_ne!(second, first);
        assert_eq!(at(2401), second);
        // The clock was set back.
        assert_ne!(at(0), second);
    }

    #[test]
    fn another_key_signs_another_token() {
        let tokens = tokens();
        let first = tokens.current(&key(), NOW_UNIX).unwrap().text;
        assert_ne!(tokens.current(&key(), NOW_UNIX).unwrap().text, first);
    }

    #[test]
    fn a_refused_token_is_replaced_once_in_a_while() {
        let (tokens, key) = (tokens(), key());
        let first = tokens.current(&key, NOW_UNIX).unwrap();
        let second = tokens
            .instead_of(&first, NOW_UNIX, NOW_UNIX - 3600)
            .unwrap();
        assert_eq!(part(&second, 1)["iat"], NOW_UNIX - 3600);
        // Everybody else who was refused with the first gets the second, and keeps it.
        let again = tokens.instead_of(&first, NOW_UNIX, NOW_UNIX).unwrap();
        assert_eq!(again.text, second.text);
        assert_eq!(tokens.current(&key, NOW_UNIX).unwrap().text, second.text);

        assert!(
            tokens
                .instead_of(&second, NOW_UNIX + 1199, NOW_UNIX)
                .is_none()
        );
        assert!(
            tokens
                .instead_of(&second, NOW_UNIX + 1200, NOW_UNIX)
                .is_some()
        );
    }
}
