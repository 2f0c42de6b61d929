//! A subscription of the web: the keys of a browser, which can read what it is sent.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use web_push_native::{
    Auth,
    p256::{
        SecretKey, elliptic_curve::rand_core::OsRng, elliptic_curve::sec1::ToEncodedPoint as _,
    },
};

use super::seen::Accepted;

/// What `PushSubscription.toJSON()` says, and the secret behind it.
pub(crate) struct Subscription {
    pub(crate) endpoint: String,
    /// base64url, as `auth`.
    pub(crate) p256dh: String,
    pub(crate) auth: String,
    secret: SecretKey,
    auth_secret: Auth,
}

impl Subscription {
    pub(super) fn new(endpoint: String) -> Self {
        let secret = SecretKey::random(&mut OsRng);
        let auth_secret = Auth::from(*uuid::Uuid::now_v7().as_bytes());
        let public = secret.public_key().to_encoded_point(false);
        Self {
            endpoint,
            p256dh: URL_SAFE_NO_PAD.encode(public),
            auth: URL_SAFE_NO_PAD.encode(auth_secret),
            secret,
            auth_secret,
        }
    }

    /// The plain text of a notification; none if it is not for this subscription.
    pub(crate) fn decrypt(&self, accepted: &Accepted) -> Option<Vec<u8>> {
        web_push_native::decrypt(accepted.body.clone(), &self.secret, &self.auth_secret).ok()
    }
}
