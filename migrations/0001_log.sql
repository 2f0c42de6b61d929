-- The log and all that stands around it.
--
-- Every table that belongs to a conversation begins its keys with conversation_id, so that
-- the tables can be sharded by it: no foreign key crosses conversations, and conversation
-- ids are made outside the database. Users and devices are the small, global part.

-- A user exists from the first valid token, or from being added to a conversation.
create table users (
    user_id bigint generated always as identity primary key,
    -- The `sub` of the token.
    subject text not null unique,
    created_at timestamptz not null default now()
);

create table conversations (
    conversation_id uuid primary key,
    kind text not null check (kind in ('direct', 'group')),
    title text,
    -- Bumped when a promotion may have lost commits; clients that see a new epoch resync.
    epoch integer not null default 1,
    -- The sequence of the newest entry; 0 while the log is empty.
    last_seq bigint not null default 0 check (last_seq >= 0),
    -- How many of the entries are messages that a person would count.
    last_ordinal bigint not null default 0,
    -- Rises with every change of the participants, so that a cache knows when it is old.
    members_version integer not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
) with (fillfactor = 50); -- the heads change with every batch: leave room for HOT updates

create table participants (
    conversation_id uuid not null references conversations,
    user_id bigint not null references users,
    role text not null default 'member' check (role in ('owner', 'admin', 'member', 'readonly')),
    -- The first entry the user may see.
    joined_seq bigint not null check (joined_seq >= 1),
    -- The last entry the user may see: the one that says who was removed. Null while taking part.
    left_seq bigint,
    -- Everything up to here has been read by the user / has reached one of the user's devices.
    read_seq bigint not null default 0,
    read_ordinal bigint not null default 0,
    delivered_seq bigint not null default 0,
    muted_until timestamptz,
    primary key (conversation_id, user_id)
) with (fillfactor = 70);

create index participants_user on participants (user_id);

-- One row per entry: messages of participants, and what the server writes (membership).
create table messages (
    conversation_id uuid not null,
    -- 1, 2, 3, … without gaps, in commit order.
    seq bigint not null check (seq >= 1),
    -- The place among the entries that count as unread; null for those that do not.
    ordinal bigint,
    sender_id bigint not null,
    -- The device that published it; null if it came over REST.
    sender_device bigint,
    -- Chosen by the sender: makes a repeat harmless, for ever.
    client_message_id text not null,
    type text not null,
    -- How `body` is written: 0 = JSON text.
    content_format smallint not null default 0,
    body bytea not null,
    -- Members of the envelope that the server does not know, as a JSON object; null if none.
    extra bytea,
    -- The entry this one answers.
    ref_seq bigint,
    created_at timestamptz not null default now(),
    primary key (conversation_id, seq),
    unique (conversation_id, sender_id, client_message_id)
) partition by hash (conversation_id);

create table messages_0 partition of messages for values with (modulus 4, remainder 0);
create table messages_1 partition of messages for values with (modulus 4, remainder 1);
create table messages_2 partition of messages for values with (modulus 4, remainder 2);
create table messages_3 partition of messages for values with (modulus 4, remainder 3);

create table devices (
    device_id bigint generated always as identity primary key,
    user_id bigint not null references users,
    -- The MQTT client id. Two users may use the same one: they are two devices.
    client_id text not null,
    created_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    unique (user_id, client_id)
);

-- The MQTT session of a device. The row stays when the session ends: its generation goes on.
create table sessions (
    device_id bigint primary key references devices on delete cascade,
    -- Rises with every connection: whoever holds an older one has been taken over.
    generation bigint not null default 1,
    -- The node that the device is connected to; null while it is offline.
    node text,
    -- Whether there is a session to come back to.
    is_present boolean not null default false,
    -- How long it outlives its connection, in seconds.
    expiry_seconds bigint not null default 0,
    -- Since when the device is away; null while it is connected.
    disconnected_at timestamptz,
    -- [{"filter": …, "qos": …, …}], as the protocol core writes them.
    subscriptions jsonb not null default '[]',
    -- [[packet id, conversation, seq], …]: sent, not acknowledged. [MQTT-4.4.0-1]
    inflight jsonb not null default '[]'
) with (fillfactor = 70);

create index sessions_away on sessions (disconnected_at) where is_present and disconnected_at is not null;

-- What a device has acknowledged, in order. No row: the device has seen all before it
-- subscribed, and nothing since the user joined the conversation.
create table device_cursors (
    conversation_id uuid not null,
    device_id bigint not null references devices on delete cascade,
    delivered_seq bigint not null,
    primary key (conversation_id, device_id)
) with (fillfactor = 70);

create index device_cursors_device on device_cursors (device_id);

-- Committed facts for those who act on them later: the fan-out after a crash, push,
-- webhooks. One row per (conversation, batch).
create table outbox (
    id bigint generated always as identity,
    event_type text not null,
    aggregate_type text not null default 'conversation',
    aggregate_id uuid not null,
    -- {"from": seq, "to": seq}
    payload jsonb not null,
    created_at timestamptz not null default now(),
    processed_at timestamptz,
    -- The transaction that wrote the row. Readers stay below pg_snapshot_xmin(), so that a
    -- late commit is never skipped.
    xid xid8 not null default pg_current_xact_id(),
    primary key (xid, id)
);

-- How far each consumer has read.
create table outbox_consumers (
    name text primary key,
    xid xid8 not null default '0',
    id bigint not null default 0
);

-- Appends a batch and assigns the sequences; one transaction, one fsync, many messages.
--
-- The arrays have one element per message. Repeats within the batch are folded by the
-- caller. A bad message is refused alone. outcome: 0 stored, 1 stored earlier (a repeat),
-- 2 no such conversation, 3 not a participant or not allowed to write.
create function append_batch(
    conversation_ids uuid[], sender_ids bigint[], sender_devices bigint[], client_message_ids text[],
    types text[], bodies bytea[], extras bytea[], ref_seqs bigint[]
) returns table (item integer, outcome smallint, seq bigint, at_millis bigint, members_version integer)
language plpgsql as $$
#variable_conflict use_column
begin
    -- In the order of the ids, so that two batches cannot wait for each other in a circle.
    -- Held until the commit: nobody sees sequence n + 1 before n, and "seq > cursor" is a
    -- safe way to read on.
    perform 1 from conversations c
    where c.conversation_id = any (conversation_ids)
    order by c.conversation_id for update;

    -- A second statement: its snapshot is younger than the locks, so it sees every repeat
    -- that another batch committed while we waited.
    return query
    with input as (
        select i.ordinality::integer as item, i.*
        from unnest(conversation_ids, sender_ids, sender_devices, client_message_ids, types,
                    bodies, extras, ref_seqs) with ordinality
            as i (conversation_id, sender_id, sender_device, client_message_id, type, body, extra, ref_seq)
    ), judged as (
        select i.*, c.last_seq, c.last_ordinal, c.members_version, d.seq as first_seq, d.created_at as first_at,
            case when d.seq is not null then 1
                 when c.conversation_id is null then 2
                 when p.user_id is null then 3
                 else 0 end::smallint as outcome
        from input i
        left join lateral (
            select c.* from conversations c where c.conversation_id = i.conversation_id
        ) c on true
        left join lateral (
            select m.seq, m.created_at from messages m
            where m.conversation_id = i.conversation_id and m.sender_id = i.sender_id
              and m.client_message_id = i.client_message_id
        ) d on true
        left join lateral (
            select p.user_id from participants p
            where p.conversation_id = i.conversation_id and p.user_id = i.sender_id
              and p.left_seq is null and p.role <> 'readonly'
        ) p on true
    ), numbered as (
        select j.*, row_number() over (partition by j.conversation_id order by j.item) as place
        from judged j where j.outcome = 0
    ), stored as (
        insert into messages (conversation_id, seq, ordinal, sender_id, sender_device,
                              client_message_id, type, body, extra, ref_seq)
        select n.conversation_id, n.last_seq + n.place, n.last_ordinal + n.place, n.sender_id, n.sender_device,
               n.client_message_id, n.type, n.body, n.extra, n.ref_seq
        from numbered n
    ), heads as (
        select n.conversation_id, min(n.last_seq) as last_seq, count(*) as added
        from numbered n group by n.conversation_id
    ), advanced as (
        update conversations c
        set last_seq = c.last_seq + h.added, last_ordinal = c.last_ordinal + h.added, updated_at = now()
        from heads h where c.conversation_id = h.conversation_id
    ), announced as (
        insert into outbox (event_type, aggregate_id, payload)
        select 'appended', h.conversation_id,
               jsonb_build_object('from', h.last_seq + 1, 'to', h.last_seq + h.added)
        from heads h
    )
    select j.item, j.outcome,
           coalesce(j.first_seq, n.last_seq + n.place),
           (extract(epoch from coalesce(j.first_at, now())) * 1000)::bigint,
           j.members_version
    from judged j left join numbered n on n.item = j.item;
end
$$;
