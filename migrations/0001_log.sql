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
    -- No notification before this.
    muted_until timestamptz,
    primary key (conversation_id, user_id)
) with (fillfactor = 70);

-- Both columns, so that a look-up of one participant is good by either index, and a wrong
-- estimate cannot make it read all conversations of a user. So with device_cursors.
create index participants_user on participants (user_id, conversation_id);

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

-- While most conversations hold one message, the planner believes that all do, and that a
-- repeat is found as well by reading its conversation from the primary key; in a long one
-- that is a disaster. So it is told that all messages may be of the one it asks for.
alter table messages_0 alter column conversation_id set (n_distinct = 1);
alter table messages_1 alter column conversation_id set (n_distinct = 1);
alter table messages_2 alter column conversation_id set (n_distinct = 1);
alter table messages_3 alter column conversation_id set (n_distinct = 1);

create table devices (
    device_id bigint generated always as identity primary key,
    user_id bigint not null references users,
    -- The MQTT client id. Two users may use the same one: they are two devices.
    client_id text not null,
    created_at timestamptz not null default now(),
    unique (user_id, client_id)
);

-- The MQTT session of a device. The row stays when the session ends: its generation goes on.
create table sessions (
    device_id bigint primary key references devices on delete cascade,
    -- Rises with every connection: whoever holds an older one has been taken over.
    generation bigint not null default 0,
    -- The node that the device is connected to; null while it is offline.
    node text,
    -- Whether there is a session to come back to.
    is_present boolean not null default false,
    -- How long it outlives its connection, in seconds.
    expiry_seconds bigint not null default 0,
    -- Since when the device is away; null while it is connected.
    disconnected_at timestamptz,
    -- When the session of an absent device ends; null while connected, or if there is none.
    expires_at timestamptz,
    -- [{"filter": …, "qos": …, …}], as the protocol core writes them.
    subscriptions jsonb not null default '[]',
    -- [[packet id, conversation, seq], …]: sent, not acknowledged. [MQTT-4.4.0-1]
    inflight jsonb not null default '[]'
) with (fillfactor = 70);

create index sessions_expiry on sessions (expires_at) where expires_at is not null;
create index sessions_node on sessions (node) where node is not null;

-- What a device has acknowledged, in order. No row: the device has seen all before it
-- subscribed, and nothing since the user joined the conversation.
--
-- No foreign key: a thousand rows are written at once when a device subscribes, and a row
-- without its device does no harm.
create table device_cursors (
    conversation_id uuid not null,
    device_id bigint not null,
    delivered_seq bigint not null,
    primary key (conversation_id, device_id)
) with (fillfactor = 70);

create index device_cursors_device on device_cursors (device_id, conversation_id);

-- Committed facts for those who act on them later: the fan-out after a crash, push,
-- webhooks. One row per (conversation, batch). Rows leave when all consumers have passed.
--
-- Transaction numbers belong to one cluster: whoever loads a dump into another empties
-- outbox and outbox_consumers.
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
        from unnest(conversation_ids, sender_ids, sender_devices, client_message_ids, types,
                    bodies, extras, ref_seqs) with ordinality
            as i (conversation_id, sender_id, sender_device, client_message_id, type, body, extra, ref_seq)
    ), judged as (
        -- `limit 1` makes a look-up of each sub-query, whatever the planner knows of the tables.
        -- A repeat is answered first: whoever was removed since still learns that it is stored.
        select i.*, c.last_seq, c.last_ordinal, c.members_version, d.seq as first_seq, d.created_at as first_at,
            case when d.seq is not null then 1
                 when c.conversation_id is null then 2
                 when p.user_id is null then 3
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
            select p.user_id from participants p
            where p.conversation_id = i.conversation_id and p.user_id = i.sender_id
              and p.left_seq is null and p.role <> 'readonly'
            limit 1
        ) p on true
    ), numbered as (
        select j.*, row_number() over (partition by j.outcome, j.conversation_id order by j.item) as place
        from judged j
    ), stored as (
        insert into messages (conversation_id, seq, ordinal, sender_id, sender_device,
                              client_message_id, type, body, extra, ref_seq, created_at)
        select n.conversation_id, n.last_seq + n.place, n.last_ordinal + n.place, n.sender_id, n.sender_device,
               n.client_message_id, n.type, n.body, n.extra, n.ref_seq, stored_at
        from numbered n where n.outcome = 0
    ), heads as (
        select n.conversation_id, min(n.last_seq) as last_seq, count(*) as added
        from numbered n where n.outcome = 0 group by n.conversation_id
    ), advanced as (
        update conversations c
        set last_seq = c.last_seq + h.added, last_ordinal = c.last_ordinal + h.added, updated_at = stored_at
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
end
$$;

-- Ends sessions whose rows the caller has locked: there is nothing to come back to.
create function end_sessions(device_ids bigint[]) returns integer
language plpgsql as $$
begin
    update sessions
    set is_present = false, expires_at = null, subscriptions = '[]', inflight = '[]'
    where device_id = any (device_ids);

    -- In the order in which settle() writes them, so that the two cannot wait in a circle.
    with ended as (
        select d.conversation_id, d.device_id from device_cursors d
        where d.device_id = any (device_ids)
        order by d.conversation_id, d.device_id for update
    )
    delete from device_cursors d using ended e
    where d.conversation_id = e.conversation_id and d.device_id = e.device_id;

    return cardinality(device_ids);
end
$$;

-- Connects a device: finds or makes its row and its session, and takes the session over.
create function open_session(
    owner_id bigint, client text, clean_start boolean, expiry bigint, node_name text
)
returns table (device_id bigint, generation bigint, is_present boolean, subscriptions jsonb, inflight jsonb)
language plpgsql as $$
#variable_conflict use_column
declare
    device bigint;
    earlier sessions%rowtype;
    resumes boolean;
begin
    select d.device_id into device from devices d where d.user_id = owner_id and d.client_id = client;
    if device is null then
        insert into devices (user_id, client_id) values (owner_id, client)
        on conflict (user_id, client_id) do nothing;
        -- Another connection may have been first: look again, with a younger snapshot.
        select d.device_id into device from devices d where d.user_id = owner_id and d.client_id = client;
        insert into sessions (device_id) values (device) on conflict (device_id) do nothing;
    end if;

    -- Of two connections at once, one waits here for the other.
    select s.* into strict earlier from sessions s where s.device_id = device for update;
    resumes := earlier.is_present and not clean_start and coalesce(earlier.expires_at > now(), true);
    if resumes then
        -- No fsync to come back. What a crash of the database forgets here is who was
        -- connected, and everybody connects again; the generation is never given twice.
        perform set_config('synchronous_commit', 'off', true);
    else
        perform end_sessions(array[device]);
    end if;

    return query
    update sessions s
    set generation = greatest(s.generation + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint),
        node = node_name, disconnected_at = null, expires_at = null,
        is_present = expiry > 0, expiry_seconds = expiry
    where s.device_id = device
    returning s.device_id, s.generation, resumes, s.subscriptions, s.inflight;
end
$$;

-- Disconnects devices, and ends the sessions that are not kept. One element per device;
-- whoever was taken over meanwhile is left alone. Returns how many were disconnected.
create function close_sessions(
    devices bigint[], held_generations bigint[], keeps boolean[], expiries bigint[], unacknowledged jsonb[]
) returns integer
language plpgsql as $$
declare
    closed bigint[];
    ended bigint[];
begin
    -- In the order of the ids, so that two of them cannot wait in a circle.
    perform 1 from sessions s where s.device_id = any (devices) order by s.device_id for no key update;

    with input as (
        select i.* from unnest(devices, held_generations, keeps, expiries, unacknowledged)
            as i (device_id, generation, keep, expiry, inflight)
    ), updated as (
        update sessions s
        set generation = i.generation, node = null, disconnected_at = now(), is_present = i.keep,
            expiry_seconds = i.expiry, expires_at = now() + make_interval(secs => i.expiry),
            inflight = i.inflight
        from input i
        where s.device_id = i.device_id and s.generation <= i.generation
        returning s.device_id, i.keep
    )
    select array_agg(u.device_id), array_agg(u.device_id) filter (where not u.keep)
    into closed, ended from updated u;

    if ended is not null then
        perform end_sessions(ended);
    end if;
    return coalesce(array_length(closed, 1), 0);
end
$$;

-- Moves cursors and standings forward, never back and never beyond what the user may see.
-- The arrays have one element per report; a device may be null (read over REST), and so may
-- either position. Returns the standings that moved.
create function settle(
    device_ids bigint[], user_ids bigint[], conversation_ids uuid[], delivered_seqs bigint[], read_seqs bigint[]
) returns table (conversation_id uuid, user_id bigint, delivered_seq bigint, read_seq bigint)
language plpgsql as $$
#variable_conflict use_column
begin
    -- What has been delivered is told again after a crash; what has been read may not be.
    if cardinality(array_remove(read_seqs, null)) = 0 then
        perform set_config('synchronous_commit', 'off', true);
    end if;

    -- Whoever was removed still acknowledges the entry that says so.
    insert into device_cursors as d (conversation_id, device_id, delivered_seq)
    select i.conversation_id, i.device_id, max(least(i.delivered_seq, c.last_seq, p.left_seq))
    from unnest(device_ids, user_ids, conversation_ids, delivered_seqs)
        as i (device_id, user_id, conversation_id, delivered_seq)
    join participants p on p.conversation_id = i.conversation_id and p.user_id = i.user_id
    join conversations c on c.conversation_id = i.conversation_id
    where i.device_id is not null and i.delivered_seq is not null
    group by i.conversation_id, i.device_id
    order by i.conversation_id, i.device_id
    on conflict (conversation_id, device_id) do update set delivered_seq = excluded.delivered_seq
    where d.delivered_seq < excluded.delivered_seq;

    -- In the order of the keys, so that two calls cannot wait for each other in a circle.
    perform 1
    from unnest(user_ids, conversation_ids, delivered_seqs, read_seqs)
        as i (user_id, conversation_id, delivered_seq, read_seq)
    join participants p on p.conversation_id = i.conversation_id and p.user_id = i.user_id
    where greatest(i.delivered_seq, i.read_seq) > p.delivered_seq or i.read_seq > p.read_seq
    order by p.conversation_id, p.user_id for no key update of p;

    return query
    with furthest as (
        -- Not null but 0 for what was not reported: least() and greatest() pass over nulls.
        select i.conversation_id, i.user_id, coalesce(max(i.read_seq), 0) as read_seq,
               coalesce(max(greatest(i.delivered_seq, i.read_seq)), 0) as delivered_seq
        from unnest(user_ids, conversation_ids, delivered_seqs, read_seqs)
            as i (user_id, conversation_id, delivered_seq, read_seq)
        where i.delivered_seq is not null or i.read_seq is not null
        group by i.conversation_id, i.user_id
    ), visible as (
        -- Null is "not reported", and least() would read it as "everything".
        select f.conversation_id, f.user_id, least(f.delivered_seq, c.last_seq) as delivered_seq,
               case when f.read_seq is not null then least(f.read_seq, c.last_seq) end as read_seq
        from furthest f join conversations c on c.conversation_id = f.conversation_id
    )
    update participants p
    set delivered_seq = greatest(p.delivered_seq, v.delivered_seq),
        read_seq = greatest(p.read_seq, v.read_seq),
        read_ordinal = case when v.read_seq > p.read_seq then greatest(p.read_ordinal, (
            select m.ordinal from messages m
            where m.conversation_id = v.conversation_id and m.seq <= v.read_seq and m.ordinal is not null
            order by m.seq desc limit 1
        )) else p.read_ordinal end
    from visible v
    where p.conversation_id = v.conversation_id and p.user_id = v.user_id and p.left_seq is null
      and (v.delivered_seq > p.delivered_seq or v.read_seq > p.read_seq)
    returning p.conversation_id, p.user_id, p.delivered_seq, p.read_seq;
end
$$;
