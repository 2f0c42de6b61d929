//! A hash over entries of a log, by which a client proves that it holds the same ones.
//!
//! The sum, modulo 2^64, of the first eight bytes (big endian) of SHA-256("{seq}:{from}:{id}") of
//! each entry. Sums of neighbouring ranges add up to that of both. It covers which entries there
//! are, in which order and of whom; not their content, which may be taken back.

use sqlx::PgConnection;

use crate::domain::ids::ConversationId;

use super::StoreError;

/// The hash of the entries `from..=to` of each conversation, in order; 0 of no entries.
pub async fn rolling(
    conn: &mut PgConnection,
    ranges: &[(ConversationId, i64, i64)],
) -> Result<Vec<u64>, StoreError> {
    let ids: Vec<_> = ranges.iter().map(|(id, ..)| id.0).collect();
    let from: Vec<_> = ranges.iter().map(|(_, from, _)| *from).collect();
    let to: Vec<_> = ranges.iter().map(|(.., to)| *to).collect();
    sqlx::query_scalar!(
        r#"select mod(mod(h.sum, 18446744073709551616) + 18446744073709551616, 18446744073709551616)::text as "sum!"
           from unnest($1::uuid[], $2::bigint[], $3::bigint[]) with ordinality
               as i (conversation_id, from_seq, to_seq, place)
           cross join lateral (
               select coalesce(sum(('x' || encode(substring(sha256(convert_to(
                          m.seq || ':' || u.subject || ':' || m.client_message_id, 'UTF8'
                      )) for 8), 'hex'))::bit(64)::bigint), 0) as sum
               from (
                   select m.seq, m.sender_id, m.client_message_id from messages m
                   where m.conversation_id = i.conversation_id
                     and m.seq between i.from_seq and i.to_seq
                   order by m.seq
               ) m
               join users u on u.user_id = m.sender_id
           ) h
           order by i.place"#,
        &ids[..],
        &from[..],
        &to[..],
    )
    .fetch_all(conn)
    .await?
    .iter()
    .map(|sum| sum.parse().map_err(StoreError::corrupt))
    .collect()
}
