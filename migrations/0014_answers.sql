-- A message answers one that its sender sees, or none.

-- As before; and outcome 7: `ref_seqs` names what is not in the log yet, or what the sender may not
-- see. Judged under the lock, against the head before this batch: of the batch itself nobody has
-- heard. A null names nothing.
create or replace function append_batch(
    conversation_ids uuid[], sender_ids bigint[], sender_devices bigint[], client_message_ids text[],
    types text[], content_formats smallint[], bodies bytea[], extras bytea[], ref_seqs bigint[],
    expiries bigint[], mention_lists text[]
) returns table (item integer, outcome smallint, seq bigint, at_millis bigint, members_version integer)
language plpgsql as $$
#variable_conflict use_column
declare
    stored_at timestamptz;
begin
    -- In the order of the ids, so that two batches cannot wait for each other in a circle.
    -- Held until the commit: nobody sees sequence n + 1 before n, and "seq > cursor" is a
    -- safe way to read on.
    perform 1 from conversations c
    where c.conversation_id = any (conversation_ids)
    order by c.conversation_id for no key update;

    -- Taken under the lock, so that times rise with the sequences.
    stored_at := date_trunc('milliseconds', clock_timestamp());

    -- A second statement: its snapshot is younger than the locks, so it sees every repeat
    -- that another batch committed while we waited.
    return query
    with input as (
        select i.ordinality::integer as item, i.*
        from unnest(conversation_ids, sender_ids, sender_devices, client_message_ids, types, content_formats,
                    bodies, extras, ref_seqs, expiries, mention_lists) with ordinality
            as i (conversation_id, sender_id, sender_device, client_message_id, type, content_format,
                  body, extra, ref_seq, expires_at_millis, mentioned)
    ), judged as (
        -- `limit 1` makes a look-up of each sub-query, whatever the planner knows of the tables.
        -- A repeat is answered first: whoever was removed since still learns that it is stored.
        select i.*, c.last_seq, c.last_ordinal, c.members_version, d.seq as first_seq, d.created_at as first_at,
            case when d.seq is not null then 1
                 when c.conversation_id is null then 2
                 when p.user_id is null then 3
                 when c.archived_at is not null then 4
                 when p.silenced_until > stored_at then 5
                 when p.is_blocked then 6
                 when i.ref_seq not between greatest(p.visible_from, c.first_seq) and c.last_seq then 7
                 else 0 end::smallint as outcome
        from input i
        left join lateral (
            select c.* from conversations c where c.conversation_id = i.conversation_id limit 1
        ) c on true
        left join lateral (
            select m.seq, m.created_at from messages m
            where m.conversation_id = i.conversation_id and m.sender_id = i.sender_id
              and m.client_message_id = i.client_message_id
            limit 1
        ) d on true
        left join lateral (
            select p.user_id, p.silenced_until, p.is_blocked, p.visible_from from participants p
            where p.conversation_id = i.conversation_id and p.user_id = i.sender_id
              and p.left_seq is null and p.role <> 'readonly'
            limit 1
        ) p on true
    ), numbered as (
        select j.*, row_number() over (partition by j.outcome, j.conversation_id order by j.item) as place
        from judged j
    ), stored as (
        insert into messages (conversation_id, seq, ordinal, sender_id, sender_device, client_message_id,
                              type, content_format, body, extra, ref_seq, created_at, expires_at)
        select n.conversation_id, n.last_seq + n.place, n.last_ordinal + n.place, n.sender_id, n.sender_device,
               n.client_message_id, n.type, n.content_format, n.body, n.extra, n.ref_seq, stored_at,
               to_timestamp(n.expires_at_millis / 1000.0)
        from numbered n where n.outcome = 0
    ), heads as (
        select n.conversation_id, min(n.last_seq) as last_seq, count(*) as added
        from numbered n where n.outcome = 0 group by n.conversation_id
    ), advanced as (
        update conversations c
        set last_seq = c.last_seq + h.added, last_ordinal = c.last_ordinal + h.added,
            last_message_seq = c.last_seq + h.added, updated_at = stored_at
        from heads h where c.conversation_id = h.conversation_id
    ), announced as (
        insert into outbox (event_type, aggregate_id, payload)
        select 'appended', h.conversation_id,
               jsonb_build_object('from', h.last_seq + 1, 'to', h.last_seq + h.added)
        from heads h
    )
    select n.item, n.outcome,
           case n.outcome when 0 then n.last_seq + n.place else n.first_seq end,
           (extract(epoch from coalesce(n.first_at, stored_at)) * 1000)::bigint,
           coalesce(n.members_version, 0)
    from numbered n;

    -- Seldom, so it costs the others nothing. What was stored before this call keeps its mentions.
    if cardinality(array_remove(mention_lists, null)) > 0 then
        insert into mentions (conversation_id, user_id, seq)
        select m.conversation_id, p.user_id, m.seq
        from unnest(conversation_ids, sender_ids, client_message_ids, mention_lists)
            as i (conversation_id, sender_id, client_message_id, mentioned)
        cross join lateral (
            select m.conversation_id, m.seq, m.created_at, m.retract_seq from messages m
            where m.conversation_id = i.conversation_id and m.sender_id = i.sender_id
              and m.client_message_id = i.client_message_id
            limit 1
        ) m
        cross join lateral string_to_table(i.mentioned, E'\n') as named (name)
        cross join lateral (
            select u.user_id from users u where u.subject = named.name limit 1
        ) u
        cross join lateral (
            select p.user_id from participants p
            where p.conversation_id = i.conversation_id and p.user_id = u.user_id and p.left_seq is null
            limit 1
        ) p
        where i.mentioned is not null and m.created_at = stored_at and m.retract_seq is null
          and p.user_id <> i.sender_id
        on conflict do nothing;
    end if;
end
$$;
