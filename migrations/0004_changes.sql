-- Messages of every kind, and what is said about them later: edits, retractions, reactions.

-- content_format: 0 = JSON text, 1 = bytes, -1 = erased: retracted, expired, or older than the
-- conversation keeps its contents. The row stays, so that sequences have no gaps and a repeat is
-- recognised for ever.

-- What was erased leaves the index, so that nobody looks at it again.
drop index messages_expiry;
create index messages_expiry on messages (expires_at) where expires_at is not null and content_format >= 0;

-- The edits of a message, which are erased with it.
create index messages_edits on messages (conversation_id, ref_seq) where type = 'edit';

-- Whom a message mentions, to forget it with the message.
create index mentions_message on mentions (conversation_id, seq);

-- Conversations that do not keep everything.
create index conversations_retention on conversations (conversation_id) where retention_seconds is not null;

drop function append_batch(uuid[], bigint[], bigint[], text[], text[], bytea[], bytea[], bigint[]);

-- Appends a batch of messages and assigns the sequences; one transaction, one fsync, many messages.
--
-- The arrays have one element per message. Repeats within the batch are folded by the
-- caller. A bad message is refused alone. `expiries` are milliseconds since 1970; a list of
-- mentions is the names of users, one on a line, or null. outcome: 0 stored, 1 stored earlier
-- (a repeat), 2 no such conversation, 3 not a participant or not allowed to write, 4 the
-- conversation is archived, 5 the sender is silenced, 6 the sender is blocked.
create function append_batch(
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
            select p.user_id, p.silenced_until, p.is_blocked from participants p
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

-- Appends edits, retractions and reactions, one after the other; one transaction, one fsync.
--
-- As append_batch, but each of them sees what those before it did. `ref_seqs` name the messages
-- they change; a reaction has a key and says whether it is taken back; the mentions of an edited
-- message are replaced if the edit has a list of them, be it an empty one. outcome: as of
-- append_batch, and 7 there is no such message for the sender, 8 it is somebody else's, 9 it is
-- retracted or has expired, 10 it has `reaction_keys_max` sorts of reactions already.
--
-- A reaction that changes nothing is a repeat (1): of the entry that gave it, or, where there is
-- none to take back, with the sequence of the message.
create function append_changes(
    conversation_ids uuid[], sender_ids bigint[], sender_devices bigint[], client_message_ids text[],
    types text[], content_formats smallint[], bodies bytea[], extras bytea[], ref_seqs bigint[],
    mention_lists text[], reaction_keys text[], are_removals boolean[], reaction_keys_max bigint
) returns table (item integer, outcome smallint, seq bigint, at_millis bigint, members_version integer)
language plpgsql as $$
#variable_conflict use_column
declare
    stored_at timestamptz;
    change record;
    earlier record;
    target record;
    conversation conversations%rowtype;
    sender participants%rowtype;
    verdict smallint;
    place bigint;
    grown uuid[] := '{}';
    places bigint[] := '{}';
begin
    perform 1 from conversations c
    where c.conversation_id = any (conversation_ids)
    order by c.conversation_id for no key update;

    stored_at := date_trunc('milliseconds', clock_timestamp());

    for change in
        select i.*
        from unnest(conversation_ids, sender_ids, sender_devices, client_message_ids, types, content_formats,
                    bodies, extras, ref_seqs, mention_lists, reaction_keys, are_removals) with ordinality
            as i (conversation_id, sender_id, sender_device, client_message_id, type, content_format,
                  body, extra, ref_seq, mentioned, reaction_key, is_removal, item)
        order by i.conversation_id, i.item
    loop
        if conversation.conversation_id is distinct from change.conversation_id then
            select c.* into conversation from conversations c where c.conversation_id = change.conversation_id;
        end if;
        select m.seq, m.created_at into earlier from messages m
        where m.conversation_id = change.conversation_id and m.sender_id = change.sender_id
          and m.client_message_id = change.client_message_id;
        select p.* into sender from participants p
        where p.conversation_id = change.conversation_id and p.user_id = change.sender_id
          and p.left_seq is null and p.role <> 'readonly';
        -- Locked before anything that hangs on it, as where contents are erased.
        select m.seq, m.created_at, m.sender_id, m.ordinal, m.retract_seq, m.content_format, m.expires_at
        into target
        from messages m
        where m.conversation_id = change.conversation_id and m.seq = change.ref_seq for no key update;

        verdict := case
            when earlier.seq is not null then 1
            when conversation.conversation_id is null then 2
            when sender.user_id is null then 3
            when conversation.archived_at is not null then 4
            when sender.silenced_until > stored_at then 5
            when sender.is_blocked then 6
            when target.ordinal is null
                 or target.seq < greatest(sender.visible_from, conversation.first_seq) then 7
            when target.sender_id <> change.sender_id
                 and (change.type = 'edit' or change.type = 'retract' and sender.role not in ('owner', 'admin'))
                then 8
            when target.retract_seq is not null or target.content_format < 0
                 or target.expires_at <= stored_at then 9
            else 0 end;
        if verdict = 0 and change.type = 'reaction' and not change.is_removal and not exists (
            select from reactions r
            where r.conversation_id = change.conversation_id and r.seq = change.ref_seq
              and r.key = change.reaction_key
        ) and (
            select count(distinct r.key) from reactions r
            where r.conversation_id = change.conversation_id and r.seq = change.ref_seq
        ) >= reaction_keys_max then
            verdict := 10;
        end if;
        -- Given twice, or taken back and not there: as if it had been sent before. Whoever
        -- counts reactions by the entries of the log counts each of them once.
        if verdict = 0 and change.type = 'reaction' then
            select m.seq, m.created_at into earlier
            from reactions r
            join messages m on m.conversation_id = r.conversation_id and m.seq = r.at_seq
            where r.conversation_id = change.conversation_id and r.seq = change.ref_seq
              and r.key = change.reaction_key and r.user_id = change.sender_id;
            if change.is_removal = (earlier.seq is null) then
                verdict := 1;
                if change.is_removal then
                    select target.seq, target.created_at into earlier;
                end if;
            end if;
        end if;

        if verdict = 0 then
            conversation.last_seq := conversation.last_seq + 1;
            place := conversation.last_seq;
            grown := grown || change.conversation_id;
            places := places || place;
            -- An edit lives as long as its message.
            insert into messages (conversation_id, seq, sender_id, sender_device, client_message_id, type,
                                  content_format, body, extra, ref_seq, created_at, expires_at)
            values (change.conversation_id, place, change.sender_id, change.sender_device,
                    change.client_message_id, change.type, change.content_format, change.body, change.extra,
                    change.ref_seq, stored_at, case change.type when 'edit' then target.expires_at end);

            if change.type = 'edit' then
                update messages m set version = place, edit_seq = place
                where m.conversation_id = change.conversation_id and m.seq = change.ref_seq;
                if change.mentioned is not null then
                    delete from mentions m
                    where m.conversation_id = change.conversation_id and m.seq = change.ref_seq;
                    insert into mentions (conversation_id, user_id, seq)
                    select p.conversation_id, p.user_id, change.ref_seq
                    from string_to_table(change.mentioned, E'\n') as i (name)
                    cross join lateral (
                        select u.user_id from users u where u.subject = i.name limit 1
                    ) u
                    cross join lateral (
                        select p.* from participants p
                        where p.conversation_id = change.conversation_id and p.user_id = u.user_id
                          and p.left_seq is null
                        limit 1
                    ) p
                    where p.user_id <> change.sender_id
                    on conflict do nothing;
                end if;
            elsif change.type = 'retract' then
                update messages m
                set version = place, retract_seq = place, content_format = -1, body = '', extra = null
                where m.conversation_id = change.conversation_id and m.seq = change.ref_seq;
                update messages m set retract_seq = place, content_format = -1, body = '', extra = null
                where m.conversation_id = change.conversation_id and m.ref_seq = change.ref_seq
                  and m.type = 'edit' and m.ordinal is null;
                delete from mentions m
                where m.conversation_id = change.conversation_id and m.seq = change.ref_seq;
                delete from reactions r
                where r.conversation_id = change.conversation_id and r.seq = change.ref_seq;
            else
                update messages m set version = place
                where m.conversation_id = change.conversation_id and m.seq = change.ref_seq;
                if change.is_removal then
                    delete from reactions r
                    where r.conversation_id = change.conversation_id and r.seq = change.ref_seq
                      and r.key = change.reaction_key and r.user_id = change.sender_id;
                else
                    insert into reactions (conversation_id, seq, key, user_id, at_seq)
                    values (change.conversation_id, change.ref_seq, change.reaction_key, change.sender_id, place);
                end if;
            end if;
        end if;

        item := change.item;
        outcome := verdict;
        seq := case verdict when 0 then place when 1 then earlier.seq end;
        at_millis := (extract(epoch from case verdict when 1 then earlier.created_at else stored_at end)
                      * 1000)::bigint;
        members_version := coalesce(conversation.members_version, 0);
        return next;
    end loop;

    with heads as (
        select g.conversation_id, min(g.place) as first, max(g.place) as last
        from unnest(grown, places) as g (conversation_id, place) group by g.conversation_id
    ), advanced as (
        update conversations c set last_seq = h.last, updated_at = stored_at
        from heads h where c.conversation_id = h.conversation_id
    )
    insert into outbox (event_type, aggregate_id, payload)
    select 'appended', h.conversation_id, jsonb_build_object('from', h.first, 'to', h.last) from heads h;
end
$$;
