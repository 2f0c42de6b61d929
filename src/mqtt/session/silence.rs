//! Whether the device still lives, as far as its silence tells.
//!
//! TCP takes bytes for minutes after the other end has vanished. Who was given a message that
//! wants an acknowledgement and then sends nothing at all, for [`Limits::suspect_after`], is
//! suspect, until the next byte comes. A device that sends anything else, a PINGREQ perhaps,
//! lives, whatever it acknowledges.
//!
//! [`Limits::suspect_after`]: super::Limits::suspect_after

use std::time::Instant;

use super::{Action, Session};

/// What the silence of a device means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Silence {
    /// Nothing: nothing was sent that wants an answer since the device was last heard.
    Excused,
    /// A message was sent then, and nothing was heard since.
    Since(Instant),
    /// It lasts too long, and that was told.
    Suspect,
}

impl Session {
    /// The device has sent something, perhaps a part of a packet.
    pub fn handle_sign_of_life(&mut self) {
        if self.silence == Silence::Suspect {
            self.actions.push_back(Action::Suspect(false));
        }
        self.silence = Silence::Excused;
    }

    /// Something was sent that the device must acknowledge.
    pub(super) fn expect_sign_of_life(&mut self) {
        if self.silence == Silence::Excused {
            self.silence = Silence::Since(self.clock);
        }
    }

    /// Nobody listens until now: what was not heard may have been said.
    pub(super) fn excuse_suspicion(&mut self, now: Instant) {
        if matches!(self.silence, Silence::Since(_)) {
            self.silence = Silence::Since(now);
        }
    }

    pub(super) fn suspect_moment(&self) -> Option<Instant> {
        match self.silence {
            Silence::Since(since) => since.checked_add(self.limits.suspect_after),
            Silence::Excused | Silence::Suspect => None,
        }
    }

    pub(super) fn check_silence(&mut self, now: Instant) {
        if self.suspect_moment().is_some_and(|moment| now >= moment) {
            self.silence = Silence::Suspect;
            self.actions.push_back(Action::Suspect(true));
        }
    }
}
