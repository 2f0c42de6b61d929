//! What is said about messages later: edits, retractions and reactions.

use sqlx::PgConnection;

use super::{
    StoreError,
    messages::{AnswerRow, Appended, Columns},
};
use crate::domain::message::{NewMessage, Reaction};

/// Appends changes, each of which names a message of its conversation, one after the other;
/// the answers have the order of the batch. One message has at most `reactions_max` sorts of
/// reactions, all users together.
///
/// Call it inside a transaction and acknowledge the senders after the commit. No change may
/// repeat another one of the same batch.
pub async fn append_changes(
    conn: &mut PgConnection,
    batch: &[NewMessage],
    reactions_max: u16,
) -> Result<Vec<Appended>, StoreError> {
    let columns = Columns::of(batch);
    let reactions: Vec<_> = batch
        .iter()
        .map(|change| change.content.reaction())
        .collect();
    let keys: Vec<_> = reactions
        .iter()
        .map(|reaction| reaction.as_ref().map(|Reaction { key, .. }| key.as_str()))
        .collect();
    let removals: Vec<_> = reactions
        .iter()
        .map(|reaction| {
            reaction
                .as_ref()
                .is_some_and(|reaction| reaction.is_removed)
        })
        .collect();
    let rows = sqlx::query_as!(
        AnswerRow,
        r#"select outcome as "outcome!", seq, at_millis as "at_millis!",
                  members_version as "members_version!"
           from append_changes($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
           order by item"#,
        &columns.conversations[..],
        &columns.senders[..],
        &columns.devices[..] as &[Option<i64>],
        &columns.ids[..] as &[&str],
        &columns.kinds[..] as &[&str],
        &columns.formats[..],
        &columns.bodies[..] as &[&[u8]],
        &columns.extras[..] as &[Option<&[u8]>],
        &columns.references[..] as &[Option<i64>],
        &columns.mentions[..] as &[Option<String>],
        &keys[..] as &[Option<&str>],
        &removals[..],
        i64::from(reactions_max),
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(AnswerRow::into_appended).collect()
}
