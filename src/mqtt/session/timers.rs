//! What time does to a session.

use std::time::{Duration, Instant};

use super::{Action, Session};
use crate::{domain::envelope::DeviceEvent, mqtt::reason::ReasonCode};

/// How long a change of what is in flight waits before it is remembered.
const REMEMBER_AFTER: Duration = Duration::from_secs(1);

impl Session {
    /// The next moment at which [`Session::handle_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let silent = self
            .keep_alive
            .map(|keep_alive| self.last_heard + keep_alive);
        let welcome_again = self.paused_until(self.clock);
        let moments = [
            silent,
            self.suspect_moment(),
            self.token_moment(),
            self.remember_at,
            welcome_again,
        ];
        moments.into_iter().flatten().min()
    }

    /// Looks at the clock.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.clock = now;
        if !self.can_read(now) {
            self.excuse_silence(now);
        }
        if self
            .keep_alive
            .is_some_and(|keep_alive| now >= self.last_heard + keep_alive)
        {
            if self.can_read(now) {
                // [MQTT-3.1.2-22]
                let why = "nothing was heard for too long";
                self.close(ReasonCode::KEEP_ALIVE_TIMEOUT, why);
            } else {
                self.last_heard = now; // nobody listened
            }
        }
        self.check_silence(now);
        if self.remember_at.is_some_and(|at| now >= at) {
            self.remember_at = None;
            self.actions.push_back(Action::Remember(self.unsettled()));
        }
        self.check_token(now);
    }

    /// Nobody listens to the device until now: its silence does not count.
    pub fn excuse_silence(&mut self, now: Instant) {
        self.last_heard = now;
        self.excuse_suspicion(now);
    }

    fn check_token(&mut self, now: Instant) {
        let Some(expires) = self.token_expires else {
            return;
        };
        if now >= expires {
            self.close(
                ReasonCode::NOT_AUTHORIZED,
                "the token has expired; connect with a new one",
            );
        } else if self.token_moment().is_some_and(|moment| now >= moment) {
            self.was_warned = true;
            let in_seconds = (expires - now).as_secs();
            self.send_event(&DeviceEvent::TokenExpires { in_seconds });
        }
    }

    fn token_moment(&self) -> Option<Instant> {
        let expires = self.token_expires?;
        if self.was_warned {
            return Some(expires);
        }
        Some(
            expires
                .checked_sub(self.limits.expiry_warning)
                .unwrap_or(expires),
        )
    }

    /// Only a session that outlives its connection has something to remember.
    pub(super) fn remember_soon(&mut self) {
        if self.is_persistent() && self.remember_at.is_none() {
            self.remember_at = Some(self.clock + REMEMBER_AFTER);
        }
    }
}
