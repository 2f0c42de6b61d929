//! `homing conversation`: creates conversations and changes who takes part, over REST.

use std::time::Duration;

use clap::{Args, Subcommand};
use homing::{
    config::Config,
    domain::ids::{ConversationId, Subject},
    lifecycle::Exit,
};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    failure::Failure,
    output,
    target::{Target, TargetArgs},
};

const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Who these commands act as, unless --token says otherwise; it appears in the log.
const OPERATOR: &str = "operator";

const CREATE_EXAMPLES: &str = "\
Examples:
  CID=$(homing conversation create alice bob)
  homing conversation create alice bob carol --title 'Lunch'";

const ADD_EXAMPLES: &str = "\
Examples:
  homing conversation add AZjzwgAAcACAAAAAAAAAAQ carol
  homing conversation add AZjzwgAAcACAAAAAAAAAAQ auditor --role readonly";

/// Create a conversation, add and remove participants
#[derive(Debug, Subcommand)]
pub(super) enum Conversation {
    /// Create a conversation and print its id
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        /// The users who take part
        #[arg(required = true)]
        users: Vec<Subject>,
        /// A title; two users with a title are a group
        #[arg(long)]
        title: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Add a participant, who sees what comes from then on
    #[command(after_help = ADD_EXAMPLES)]
    Add {
        #[command(flatten)]
        place: Place,
        /// owner, admin, member or readonly
        #[arg(long)]
        role: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Remove a participant, who sees nothing of what comes from then on
    Remove {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
pub(super) struct Place {
    /// The conversation
    #[arg(value_name = "CID")]
    conversation: ConversationId,
    /// Who is added or removed
    user: Subject,
}

#[derive(Debug, Args)]
pub(super) struct Common {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

impl Conversation {
    pub(super) async fn run(self, settings: Config) -> Result<(), Failure> {
        match self {
            Self::Create {
                users,
                title,
                common,
            } => {
                let mut body = json!({ "participants": users });
                if let Some(title) = title {
                    body["title"] = title.into();
                }
                let answer = Rest::new(common.target, settings)?
                    .request(Method::POST, &["v1", "conversations"], Some(&body))
                    .await?;
                if common.json {
                    output::json(&answer)?;
                } else {
                    let id = answer["id"].as_str().ok_or_else(|| not_ours(&answer))?;
                    output::line(id)?;
                }
                Ok(())
            }
            Self::Add {
                place,
                role,
                common,
            } => {
                let body = role.map_or_else(|| json!({}), |role| json!({ "role": role }));
                change(&place, common, settings, Method::PUT, Some(&body)).await
            }
            Self::Remove { place, common } => {
                change(&place, common, settings, Method::DELETE, None).await
            }
        }
    }
}

/// Adds or removes, and prints the sequence of the notice in the log.
async fn change(
    place: &Place,
    common: Common,
    settings: Config,
    method: Method,
    body: Option<&Value>,
) -> Result<(), Failure> {
    let conversation = place.conversation.to_string();
    let path = [
        "v1",
        "conversations",
        &conversation,
        "participants",
        place.user.as_str(),
    ];
    let answer = Rest::new(common.target, settings)?
        .request(method, &path, body)
        .await?;
    if common.json {
        output::json(&json!({ "seq": answer["seq"] }))?;
    } else if let Some(sequence) = answer["seq"].as_i64() {
        output::line(&sequence.to_string())?;
    } else {
        output::note("nothing to change: it is so already");
    }
    Ok(())
}

/// The REST side of the broker.
struct Rest {
    client: reqwest::Client,
    url: Url,
    token: String,
}

/// The body of an error (RFC 9457).
#[derive(Deserialize)]
struct Problem {
    title: String,
    detail: Option<String>,
}

impl Rest {
    fn new(args: TargetArgs, settings: Config) -> Result<Self, Failure> {
        let target = Target::new(args, settings);
        let url = target.http()?;
        let url = Url::parse(&url)
            .ok()
            .filter(|url| url.scheme() == "http" && url.has_host())
            .ok_or_else(|| {
                Failure::new(format!("`{url}` is no address of the REST side"))
                    .exit(Exit::Usage)
                    .hint("write it as in http://127.0.0.1:8080")
            })?;
        let operator = Subject::new(OPERATOR).map_err(|error| Failure::new(error.to_string()))?;
        let token = target.admin_token(&operator)?;
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|error| Failure::new(error.to_string()))?;
        Ok(Self { client, url, token })
    }

    /// Sends a request; the answer is null if it has no body.
    async fn request(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
    ) -> Result<Value, Failure> {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self.client.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let body = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if !status.is_success() {
            return Err(refused(status, &body));
        }
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body)
            .map_err(|_| not_ours(&Value::from(String::from_utf8_lossy(&body))))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let reason = if error.is_timeout() {
            "no answer in time"
        } else {
            "nobody answers"
        };
        Failure::new(format!("REST at {}: {reason}", self.url))
            .exit(Exit::Unavailable)
            .hint("start the broker with `homing serve`, or name another one with --http")
    }
}

fn refused(status: StatusCode, body: &[u8]) -> Failure {
    let text = match serde_json::from_slice::<Problem>(body) {
        Ok(Problem { title, detail }) => detail.unwrap_or(title),
        Err(_) => format!("the server answered {status}"),
    };
    let failure = Failure::new(output::printable(&text));
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => failure
            .exit(Exit::Unavailable)
            .hint("try again; /readyz says what the broker waits for"),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => failure
            .exit(Exit::Refused)
            .hint("this needs a token of `homing token --admin`"),
        _ if status.is_client_error() => failure.exit(Exit::Refused),
        _ => failure.hint("the broker's log says more"),
    }
}

fn not_ours(answer: &Value) -> Failure {
    Failure::new(format!(
        "this is no answer of Homing: {}",
        output::printable(&answer.to_string())
    ))
    .hint("is --http the address of a broker?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_server_becomes_the_exit_code() {
        let problem = br#"{"title":"Not found","detail":"no such conversation","status":404}"#;
        let expected = Failure::new("no such conversation").exit(Exit::Refused);
        assert_eq!(refused(StatusCode::NOT_FOUND, problem), expected);
        let outage = refused(StatusCode::SERVICE_UNAVAILABLE, b"<html>");
        assert!(format!("{outage:?}").contains("Unavailable"), "{outage:?}");
    }
}
