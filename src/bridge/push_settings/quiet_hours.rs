//! When nothing that is not urgent is pushed to a user.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Bridge, Caller, PushSettingsError};
use crate::store::push::settings::{self, QuietHours, UnknownZone};

/// The longest name in the database of time zones has 32 bytes; nothing longer is looked up.
const ZONE_BYTES_MAX: usize = 64;
const MINUTES_A_DAY: u16 = 24 * 60;

/// A time of day, as in `22:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOfDay {
    minute: u16,
}

/// A text that is no [`TimeOfDay`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time of day is written as in `07:00`, from 00:00 to 23:59")]
pub struct InvalidTime;

/// A part of the day, by the clocks of a zone; it may go over midnight.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuietTimes {
    pub from: TimeOfDay,
    pub until: TimeOfDay,
    /// A name of the time zone database, such as `Europe/Berlin`.
    pub zone: String,
}

impl FromStr for TimeOfDay {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = |text: &str, below: u16| {
            let is_pair = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
            let number: u16 = text.parse().map_err(|_| InvalidTime)?;
            (is_pair && number < below)
                .then_some(number)
                .ok_or(InvalidTime)
        };
        let (hour, minute) = text.split_once(':').ok_or(InvalidTime)?;
        Ok(Self {
            minute: number(hour, 24)? * 60 + number(minute, 60)?,
        })
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.minute / 60, self.minute % 60)
    }
}

impl Serialize for TimeOfDay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TimeOfDay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl From<QuietHours> for QuietTimes {
    fn from(stored: QuietHours) -> Self {
        let time = |minute| TimeOfDay {
            minute: minute % MINUTES_A_DAY,
        };
        Self {
            from: time(stored.from_minute),
            until: time(stored.until_minute),
            zone: stored.zone,
        }
    }
}

impl Bridge {
    /// When it is quiet for the caller.
    pub async fn quiet_hours(
        &self,
        caller: &Caller,
    ) -> Result<Option<QuietTimes>, PushSettingsError> {
        let mut conn = self.pool().acquire().await?;
        let stored = settings::quiet_hours(&mut conn, caller.user).await?;
        Ok(stored.map(Into::into))
    }

    /// Sets when it is quiet for the caller; none is never.
    pub async fn set_quiet_hours(
        &self,
        caller: &Caller,
        times: Option<QuietTimes>,
    ) -> Result<(), PushSettingsError> {
        let hours = times.map(checked).transpose()?;
        let mut conn = self.pool().acquire().await?;
        match settings::set_quiet_hours(&mut conn, caller.user, hours.as_ref()).await? {
            Ok(()) => Ok(()),
            Err(UnknownZone) => Err(unknown(hours.as_ref().map_or("", |hours| &hours.zone))),
        }
    }
}

fn checked(times: QuietTimes) -> Result<QuietHours, PushSettingsError> {
    let QuietTimes { from, until, zone } = times;
    if from == until {
        return Err(PushSettingsError::NoHours);
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-/".contains(&byte);
    if !(1..=ZONE_BYTES_MAX).contains(&zone.len()) || !zone.bytes().all(is_name) {
        return Err(unknown(&zone));
    }
    Ok(QuietHours {
        from_minute: from.minute,
        until_minute: until.minute,
        zone,
    })
}

/// As much of the name as an answer can bear.
fn unknown(zone: &str) -> PushSettingsError {
    PushSettingsError::UnknownZone(zone.chars().take(ZONE_BYTES_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day_are_read_as_they_are_written() {
        for text in ["00:00", "07:05", "22:00", "23:59"] {
            assert_eq!(text.parse::<TimeOfDay>().unwrap().to_string(), text);
        }
        for text in [
            "", "7:00", "24:00", "12:60", "12", "12:00:00", "+1:00", "-1:00", "1２:00",
        ] {
            assert_eq!(text.parse::<TimeOfDay>(), Err(InvalidTime), "{text}");
        }
    }
}
