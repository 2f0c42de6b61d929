//! `homing conversation`: creates conversations and changes who takes part, over REST.

use clap::{Args, Subcommand};
use homing::{
    config::Config,
    domain::ids::{ConversationId, Subject},
};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    failure::Failure,
    output,
    rest::{Rest, not_ours},
    target::TargetArgs,
};

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
                let answer = Rest::as_operator(common.target, settings)?
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
    let answer = Rest::as_operator(common.target, settings)?
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
