//! What came back, as far as anybody looks at it.

use std::time::Duration;

use reqwest::{
    Response,
    header::{DATE, HeaderMap, HeaderName, RETRY_AFTER},
};
use serde::de::DeserializeOwned;
use time::{OffsetDateTime, format_description::well_known::Rfc2822};

/// More than any provider answers.
const BODY_BYTES_MAX: usize = 64 * 1024;
/// The longest wait that is believed.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);
/// From here on a difference of clocks is worth a word. APNs forgives an hour, OAuth some minutes.
const SKEW_SECONDS: i64 = 5 * 60;

/// An answer, read to its end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    /// Reads at most [`BODY_BYTES_MAX`]; what is cut off there will not parse.
    pub(super) async fn read(mut response: Response) -> reqwest::Result<Self> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            body.extend_from_slice(&chunk);
            if body.len() > BODY_BYTES_MAX {
                break;
            }
        }
        Ok(Self {
            status: response.status().as_u16(),
            headers: std::mem::take(response.headers_mut()),
            body,
        })
    }

    /// The body, if it is JSON of this form.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// How long the provider wants to be left alone (RFC 9110 §10.2.3), at most a day.
    pub(super) fn retry_after(&self, now_unix_millis: i64) -> Option<Duration> {
        parse_retry_after(self.header(&RETRY_AFTER)?, now_unix_millis)
    }

    /// The provider's clock, in seconds since 1970, if it differs notably from ours.
    pub(super) fn skewed_clock(&self, now_unix_millis: i64) -> Option<i64> {
        let theirs = unix_seconds(self.header(&DATE)?)?;
        ((theirs - now_unix_millis / 1000).abs() > SKEW_SECONDS).then_some(theirs)
    }

    /// What to add to a reason: nothing, or by how much the clocks differ.
    pub(super) fn skew(&self, now_unix_millis: i64) -> String {
        match self.skewed_clock(now_unix_millis) {
            None => String::new(),
            Some(theirs) => {
                let seconds = now_unix_millis / 1000 - theirs;
                let direction = if seconds > 0 { "ahead of" } else { "behind" };
                format!(" (our clock is {} s {direction} theirs)", seconds.abs())
            }
        }
    }

    fn header(&self, name: &HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    #[cfg(test)]
    pub(super) fn of(status: u16, headers: &[(HeaderName, &str)], body: &str) -> Self {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), value.parse().unwrap()))
            .collect();
        Self {
            status,
            headers,
            body: body.as_bytes().to_vec(),
        }
    }
}

/// Seconds, or a date.
fn parse_retry_after(text: &str, now_unix_millis: i64) -> Option<Duration> {
    let text = text.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let millis = unix_seconds(text)? * 1000 - now_unix_millis;
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// The preferred form of an HTTP date, RFC 9110 §5.6.7.
fn unix_seconds(date: &str) -> Option<i64> {
    let date = OffsetDateTime::parse(date.trim(), &Rfc2822).ok()?;
    Some(date.unix_timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT.
    const NOW_UNIX_MILLIS: i64 = 784_111_777_000;

    #[test]
    fn a_wait_is_seconds_or_a_date() {
        let wait = |text: &str| parse_retry_after(text, NOW_UNIX_MILLIS);
        assert_eq!(wait("120"), Some(Duration::from_mins(2)));
        assert_eq!(wait(" 0 "), Some(Duration::ZERO));
        let date = "Sun, 06 Nov 1994 08:50:07 GMT";
        assert_eq!(wait(date), Some(Duration::from_secs(30)));
        let past = "Sun, 06 Nov 1994 08:00:00 GMT";
        assert_eq!(wait(past), Some(Duration::ZERO));
        assert_eq!(wait("99999999999"), Some(RETRY_AFTER_MAX));
        for text in ["", "-1", "soon", "1.5"] {
            assert_eq!(wait(text), None, "{text}");
        }
    }

    #[test]
    fn clocks_that_differ_are_told_of() {
        let skew = |date: &str| Answer::of(403, &[(DATE, date)], "").skew(NOW_UNIX_MILLIS);
        assert_eq!(skew("Sun, 06 Nov 1994 08:45:00 GMT"), "");
        let behind = skew("Sun, 06 Nov 1994 09:49:37 GMT");
        assert_eq!(behind, " (our clock is 3600 s behind theirs)");
        let ahead = skew("Sun, 06 Nov 1994 08:44:36 GMT");
        assert_eq!(ahead, " (our clock is 301 s ahead of theirs)");
        assert_eq!(Answer::of(403, &[], "").skew(NOW_UNIX_MILLIS), "");
    }
}
