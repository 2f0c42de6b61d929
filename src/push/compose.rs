//! A job becomes a notification, or ends here by a rule that the store does not know.

use std::time::Duration;

use super::{
    notification::{Address, Class, Notification, Purpose, Text, Wake},
    template::{self, Occasion},
};
use crate::{
    config::{PushConfig, Template, TemplateClass},
    domain::message::Sequence,
    store::push::{
        finish::JobResult,
        jobs::{Job, JobKind, News, Part},
    },
};

/// What is to be done with a job.
pub(super) enum Composed {
    Send(Box<Prepared>),
    Decided(JobResult),
}

/// A notification and where it goes.
pub(super) struct Prepared {
    pub(super) notification: Notification,
    pub(super) address: Address,
}

impl Prepared {
    /// Whether it counts against the interval of the background class.
    pub(super) fn is_background(&self) -> bool {
        match &self.notification.purpose {
            Purpose::Wake(wake) => wake.class == Class::Background,
            Purpose::Clear(_) => true,
        }
    }

    /// Calls are sent to a token of their own, if the device has one.
    pub(super) fn token_used(&self) -> &str {
        match (&self.notification.purpose, &self.address.voip_token) {
            (Purpose::Wake(wake), Some(token)) if wake.class == Class::Voip => token,
            _ => &self.address.token,
        }
    }
}

/// Gives a job its form. `now_millis` is in milliseconds since 1970.
pub(super) fn compose(job: &Job, app: &str, config: &PushConfig, now_millis: i64) -> Composed {
    match (job.held.kind, &job.news) {
        (JobKind::Clear, _) => match wait_for_background(job, config, now_millis) {
            Some(after) => postponed(after),
            None => prepared(
                job,
                Purpose::Clear(cleared(&job.held.parts)),
                config,
                now_millis,
            ),
        },
        (JobKind::Wake, Some(news)) => wake(job, news, app, config, now_millis),
        // The message is not in the log any more.
        (JobKind::Wake, None) => suppressed("message_gone"),
    }
}

fn wake(job: &Job, news: &News, app: &str, config: &PushConfig, now_millis: i64) -> Composed {
    let Some(template) = template::choose(&config.templates, app, &news.message_type) else {
        return suppressed("template");
    };
    let class = match template.class {
        TemplateClass::None => return suppressed("template"),
        TemplateClass::Background => Class::Background,
        TemplateClass::Alert => Class::Alert,
        TemplateClass::Voip => Class::Voip,
    };
    if class == Class::Background
        && !job.is_urgent
        && let Some(after) = wait_for_background(job, config, now_millis)
    {
        return postponed(after);
    }
    let Some((conversation, sequence)) = cleared(&job.held.parts).pop() else {
        return suppressed("message_gone");
    };
    let wake = Wake {
        class,
        conversation,
        sequence,
        is_urgent: job.is_urgent,
        text: text(job, news, template, config),
        sound: template.sound.clone(),
    };
    prepared(job, Purpose::Wake(wake), config, now_millis)
}

fn text(job: &Job, news: &News, template: &Template, config: &PushConfig) -> Text {
    let occasion = Occasion {
        kind: &news.message_type,
        locale: job.address.locale.as_deref(),
        sender: news.sender.as_str(),
        title: news.title.as_deref(),
        body: &news.body,
    };
    template::text(config, template, occasion)
}

fn prepared(job: &Job, purpose: Purpose, config: &PushConfig, now_millis: i64) -> Composed {
    let time_to_live = i64::try_from(config.time_to_live.as_millis()).unwrap_or(i64::MAX);
    let latest = now_millis.saturating_add(time_to_live);
    let expires_at_millis = job.expires_at_millis.map_or(latest, |at| at.min(latest));
    let address = &job.address;
    Composed::Send(Box::new(Prepared {
        notification: Notification {
            id: job.notification_id,
            purpose,
            badge: job.badge,
            expires_at_unix: expires_at_millis / 1000,
        },
        address: Address {
            token: address.token.clone(),
            voip_token: address.voip_token.clone(),
            keys: address.p256dh.clone().zip(address.auth.clone()),
        },
    }))
}

/// How long the background class must wait on this device.
fn wait_for_background(job: &Job, config: &PushConfig, now_millis: i64) -> Option<Duration> {
    let interval = i64::try_from(config.background_interval.as_millis()).unwrap_or(i64::MAX);
    let free_at = job.address.background_at_millis?.saturating_add(interval);
    let wait = free_at.saturating_sub(now_millis);
    (wait > 0).then(|| Duration::from_millis(wait.unsigned_abs()))
}

fn cleared(parts: &[Part]) -> Vec<(crate::domain::ids::ConversationId, Sequence)> {
    parts
        .iter()
        .filter_map(|part| Some((part.conversation, Sequence::new(part.to).ok()?)))
        .collect()
}

fn postponed(after: Duration) -> Composed {
    let reason = "background_interval".to_owned();
    Composed::Decided(JobResult::Postponed { reason, after })
}

fn suppressed(reason: &str) -> Composed {
    let reason = reason.to_owned();
    Composed::Decided(JobResult::Suppressed { reason })
}
