-- Push: who can be woken, what waits to be pushed, and what became of it.

alter table sessions
    -- What the device says of itself on me/state; a new connection begins as 'active'.
    add column activity text not null default 'active' check (activity in ('active', 'background', 'away')),
    -- When the connection began that holds the session, or held it last.
    add column connected_at timestamptz,
    -- Since when a connected device takes messages and gives no sign of life: the connection
    -- may be half open. Null again with the first packet that comes from it.
    add column suspected_at timestamptz;

-- muted_until = 'infinity' is "until unmuted". Whether a mention is pushed all the same:
alter table participants add column mentions_break_mute boolean not null default true;

alter table users
    -- No notification between the two, by the clocks of quiet_zone, unless it is urgent. All
    -- three are null, or none.
    add column quiet_from time,
    add column quiet_until time,
    -- A name of pg_timezone_names.
    add column quiet_zone text,
    add constraint users_quiet_hours
        check (num_nulls(quiet_from, quiet_until, quiet_zone) in (0, 3));

-- Where a device can be woken: one row for each, since a device is one installation of one app.
create table push_tokens (
    device_id bigint primary key references devices on delete cascade,
    user_id bigint not null references users,
    provider text not null check (provider in ('apns', 'fcm', 'webpush')),
    -- The bundle id, the Firebase project, or the name of the web app.
    app text not null,
    environment text not null default 'production' check (environment in ('production', 'sandbox')),
    -- Whose credentials are needed.
    route text not null generated always as (provider || ':' || app || ':' || environment) stored,
    -- APNs and FCM: the token. Web Push: the endpoint.
    token text not null,
    -- APNs: the token of PushKit, for calls.
    voip_token text,
    -- Web Push: the keys of the subscription, base64url (RFC 8291).
    p256dh text,
    auth text,
    -- BCP 47, for texts that the server writes.
    locale text,
    -- When this very token was first registered here: a provider that says it died earlier
    -- speaks of an older one.
    registered_at timestamptz not null default now(),
    -- Since when the provider refuses it. It is used no more, and deleted after a while: many
    -- at once are a fault of the configuration, and are forgiven.
    dead_since timestamptz,
    dead_reason text,
    -- The token bucket that keeps storms from the device: what was left when it was last used.
    budget real,
    budget_at timestamptz,
    -- When the last notification of the background class left for it.
    background_at timestamptz,
    -- A phone that changes hands: whoever registers the token last has it.
    unique (route, token),
    check ((provider = 'webpush') = (p256dh is not null and auth is not null))
) with (fillfactor = 70);

create index push_tokens_user on push_tokens (user_id);
create index push_tokens_dead on push_tokens (dead_since) where dead_since is not null;

-- At most one unsent job for each (device, conversation, kind). A row stays when it is done:
-- it knows what has been pushed.
--
-- No foreign key across conversations; a job whose device or token is gone ends when it is due.
create table push_jobs (
    conversation_id uuid not null,
    user_id bigint not null,
    device_id bigint not null,
    -- 'wake': there is something new. 'clear': it has been read elsewhere.
    kind text not null check (kind in ('wake', 'clear')),
    -- Of the device's token, when the job was armed.
    route text not null,
    -- 'done' is every end; the ledger says which.
    state text not null check (state in ('armed', 'in_flight', 'backoff', 'done')),
    -- What it tells of: the first and the newest message of others since it was armed. For
    -- 'clear': everything up to to_seq has been read.
    from_seq bigint not null,
    to_seq bigint not null,
    is_urgent boolean not null default false,
    -- One of the messages names the user.
    is_mention boolean not null default false,
    -- After this there is nothing to tell; null if one of the messages stays for ever.
    expires_at timestamptz,
    -- When the message from_seq was committed.
    committed_at timestamptz not null,
    -- When it is to be looked at next: the grace, the back-off, or the end of the lease. Null
    -- when it is done.
    due_at timestamptz,
    -- Failed attempts since it was armed.
    attempts integer not null default 0,
    -- Rises with every claim: who holds an older one finishes nothing.
    claim bigint not null default 0,
    -- to_seq at the claim; kept after a failure, which may be one of the answer alone.
    claimed_seq bigint,
    -- The id of the notification: the same for every attempt.
    notification_id uuid not null default gen_random_uuid(),
    -- The newest message that a notification has told of; 0 if none did.
    pushed_seq bigint not null default 0,
    pushed_at timestamptz,
    -- When it was claimed.
    claimed_at timestamptz,
    -- Which rule makes it wait beyond its grace, if one does; it is in the ledger once.
    postponed text,
    -- What came while it was in flight: the first message, and what is to be known of them.
    -- Null if nothing came.
    next_from_seq bigint,
    next_is_urgent boolean not null default false,
    next_is_mention boolean not null default false,
    next_expires_at timestamptz,
    next_committed_at timestamptz,
    primary key (conversation_id, user_id, device_id, kind)
) with (fillfactor = 70);

create index push_jobs_due on push_jobs (route, due_at) where due_at is not null;
create index push_jobs_device on push_jobs (device_id);

-- The ledger: one row for every decision about a job, kept for push.ledger_retention.
create table push_attempts (
    attempt_id bigint generated always as identity,
    conversation_id uuid not null,
    user_id bigint not null,
    device_id bigint not null,
    kind text not null,
    from_seq bigint not null,
    to_seq bigint not null,
    -- 'sent', 'cancelled', 'suppressed', 'postponed', 'retry', 'dropped', 'dead'.
    outcome text not null,
    -- Which rule ('acknowledged', 'read', 'muted', 'quiet_hours', 'budget', …), or what the
    -- provider answered ('Unregistered', 'HTTP 503', 'timeout', …).
    reason text not null,
    route text,
    notification_id uuid,
    -- When the first of the messages was committed, when the job was claimed, and when it
    -- was decided.
    committed_at timestamptz not null,
    claimed_at timestamptz,
    decided_at timestamptz not null default now(),
    primary key (conversation_id, user_id, attempt_id)
);

create index push_attempts_decided on push_attempts (decided_at);

-- As before; a new connection is active and not suspected.
create or replace function open_session(
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
        is_present = expiry > 0, expiry_seconds = expiry,
        activity = 'active', connected_at = now(), suspected_at = null
    where s.device_id = device
    returning s.device_id, s.generation, resumes, s.subscriptions, s.inflight;
end
$$;

-- When a message may be pushed to a device: its grace is over.
create function push_due(
    committed_at timestamptz, is_reachable boolean, is_active_elsewhere boolean, connected_at timestamptz,
    grace_offline interval, grace_connected interval, grace_elsewhere interval
) returns timestamptz
language sql stable as $$
    -- greatest() passes over nulls. A device that has just come back gets its time to catch up.
    select greatest(
        case when is_reachable then greatest(committed_at, connected_at) + grace_connected end,
        case when is_active_elsewhere then committed_at + grace_elsewhere end,
        committed_at + grace_offline
    )
$$;

-- Which devices answer, as far as is known, and at which of them somebody looks.
create view device_presence as
select device_id, connected_at,
       node is not null and suspected_at is null and activity <> 'away' as is_reachable,
       node is not null and suspected_at is null and activity = 'active' as is_active
from sessions;

-- The end of the quiet hours that hold at a moment, by the clocks of the zone; null if none do.
create function push_quiet_until(quiet_from time, quiet_until time, quiet_zone text, at timestamptz)
returns timestamptz
language plpgsql stable as $$
declare
    there timestamp;
    ends timestamp;
    ends_at timestamptz;
begin
    there := at at time zone quiet_zone;
    ends := there::date + quiet_until;
    if quiet_from < quiet_until and there::time >= quiet_from and there::time < quiet_until
        or quiet_from > quiet_until and there::time < quiet_until
    then
        ends_at := ends at time zone quiet_zone;
    elsif quiet_from > quiet_until and there::time >= quiet_from then
        ends_at := (ends + interval '1 day') at time zone quiet_zone;
    end if;
    return ends_at;
exception
    -- A zone that this server does not know any more quiets nobody.
    when invalid_parameter_value then return null;
end
$$;

-- Arms jobs for messages. The first arrays have one element per item: messages of one sender
-- in one conversation, from the first to the last. The other two say who is named in which
-- item. The early pass arms only devices that are away and whose user is nowhere else; the
-- late one arms all that have not acknowledged, and notes whom a rule keeps silent.
create function arm_push(
    conversation_ids uuid[], sender_ids bigint[], first_seqs bigint[], last_seqs bigint[],
    committed timestamptz[], expiries timestamptz[], urgencies boolean[],
    mention_items bigint[], mention_users bigint[],
    is_late boolean, routes text[],
    grace_offline interval, grace_connected interval, grace_elsewhere interval, repeat_interval interval,
    at timestamptz
) returns table (jobs bigint, suppressed bigint)
language plpgsql as $$
#variable_conflict use_column
declare
    moment timestamptz := coalesce(at, now());
begin
    -- No fsync: a crash of the database forgets the jobs together with the place in the outbox,
    -- whose rows are deleted by a later commit; the claim that follows waits for the disk.
    perform set_config('synchronous_commit', 'off', true);

    return query
    with input as materialized (
        select i.*, array(
            select m.user_id from unnest(mention_items, mention_users) as m (item, user_id)
            where m.item = i.item
        ) as mentioned
        from unnest(conversation_ids, sender_ids, first_seqs, last_seqs, committed, expiries, urgencies)
            with ordinality
            as i (conversation_id, sender_id, first_seq, last_seq, committed_at, expires_at, is_urgent, item)
    ), waiting as (
        -- Everybody who has a token and neither acknowledged nor read. `limit 1` and `offset 0`
        -- make a look-up of each sub-query, whatever the planner knows of the tables.
        select i.conversation_id, p.user_id, t.device_id, t.route, i.last_seq as to_seq,
               greatest(i.first_seq, p.joined_seq, p.read_seq + 1, d.delivered_seq + 1) as from_seq,
               i.committed_at, i.expires_at, i.is_urgent, s.connected_at,
               coalesce(s.is_reachable, false) as is_reachable,
               p.user_id = any (i.mentioned) as is_mention,
               case when i.expires_at <= moment then 'expired'
                    when p.muted_until > moment
                         and not (p.mentions_break_mute and p.user_id = any (i.mentioned)) then 'muted'
                    end as silence
        from input i
        cross join lateral (
            select p.* from participants p where p.conversation_id = i.conversation_id offset 0
        ) p
        cross join lateral (
            select t.* from push_tokens t where t.user_id = p.user_id offset 0
        ) t
        left join lateral (
            select d.delivered_seq from device_cursors d
            where d.conversation_id = i.conversation_id and d.device_id = t.device_id limit 1
        ) d on true
        left join lateral (
            select s.* from device_presence s where s.device_id = t.device_id limit 1
        ) s on true
        where p.user_id <> i.sender_id and p.left_seq is null
          and p.joined_seq <= i.last_seq and p.read_seq < i.last_seq
          and t.dead_since is null and t.route = any (routes)
          and coalesce(d.delivered_seq, 0) < i.last_seq
          and (is_late or not coalesce(s.is_reachable, false))
    ), judged as materialized (
        select w.*, exists (
            select from (
                select o.device_id from devices o where o.user_id = w.user_id offset 0
            ) o cross join lateral (
                select s.is_active from device_presence s where s.device_id = o.device_id limit 1
            ) s
            where o.device_id <> w.device_id and s.is_active
        ) as is_active_elsewhere
        from waiting w
    ), wanted as (
        select j.conversation_id, j.user_id, j.device_id, j.route, min(j.from_seq) as from_seq,
               max(j.to_seq) as to_seq, bool_or(j.is_urgent) as is_urgent, bool_or(j.is_mention) as is_mention,
               case when bool_and(j.expires_at is not null) then max(j.expires_at) end as expires_at,
               min(j.committed_at) as committed_at,
               min(push_due(j.committed_at, j.is_reachable, j.is_active_elsewhere, j.connected_at,
                            grace_offline, grace_connected, grace_elsewhere)) as due_at
        from judged j
        where j.silence is null and (is_late or not j.is_active_elsewhere)
        group by j.conversation_id, j.user_id, j.device_id, j.route
    ), armed as (
        -- In the order of the keys, so that two calls cannot wait for each other in a circle.
        insert into push_jobs as j (conversation_id, user_id, device_id, kind, route, state, from_seq,
                                    to_seq, is_urgent, is_mention, expires_at, committed_at, due_at)
        select w.conversation_id, w.user_id, w.device_id, 'wake', w.route, 'armed', w.from_seq,
               w.to_seq, w.is_urgent, w.is_mention, w.expires_at, w.committed_at, w.due_at
        from wanted w order by w.conversation_id, w.user_id, w.device_id
        on conflict (conversation_id, user_id, device_id, kind) do update
        set state = case j.state when 'done' then 'armed' else j.state end,
            route = case j.state when 'in_flight' then j.route else excluded.route end,
            from_seq = case when j.state <> 'done' then least(j.from_seq, excluded.from_seq)
                            when excluded.from_seq < j.from_seq then excluded.from_seq
                            else greatest(excluded.from_seq, j.to_seq + 1) end,
            to_seq = case j.state when 'done' then excluded.to_seq
                     else greatest(j.to_seq, excluded.to_seq) end,
            is_urgent = case j.state when 'done' then excluded.is_urgent when 'in_flight' then j.is_urgent
                        else j.is_urgent or excluded.is_urgent end,
            is_mention = case j.state when 'done' then excluded.is_mention when 'in_flight' then j.is_mention
                         else j.is_mention or excluded.is_mention end,
            expires_at = case j.state when 'done' then excluded.expires_at when 'in_flight' then j.expires_at
                         else case when num_nulls(j.expires_at, excluded.expires_at) = 0
                              then greatest(j.expires_at, excluded.expires_at) end end,
            committed_at = case j.state when 'done' then excluded.committed_at
                           else least(j.committed_at, excluded.committed_at) end,
            due_at = case
                when j.state = 'done' then greatest(excluded.due_at, j.pushed_at + repeat_interval)
                when j.state <> 'armed' or j.postponed is not null and not excluded.is_urgent then j.due_at
                else greatest(least(j.due_at, excluded.due_at), j.pushed_at + repeat_interval) end,
            postponed = case when j.state <> 'done' and not excluded.is_urgent then j.postponed end,
            attempts = case j.state when 'done' then 0 else j.attempts end,
            notification_id = case j.state when 'done' then excluded.notification_id
                              else j.notification_id end,
            next_from_seq = case when j.state = 'in_flight' and excluded.to_seq > j.to_seq
                then coalesce(j.next_from_seq, greatest(excluded.from_seq, j.to_seq + 1))
                else j.next_from_seq end,
            next_is_urgent = j.state = 'in_flight' and (j.next_is_urgent or excluded.is_urgent),
            next_is_mention = j.state = 'in_flight' and (j.next_is_mention or excluded.is_mention),
            next_expires_at = case
                when j.state <> 'in_flight' then null
                when j.next_from_seq is null then excluded.expires_at
                when num_nulls(j.next_expires_at, excluded.expires_at) = 0
                then greatest(j.next_expires_at, excluded.expires_at) end,
            next_committed_at = case j.state when 'in_flight'
                then coalesce(j.next_committed_at, excluded.committed_at) end
        -- What is older than what was armed before it counts too: it was not due then.
        where excluded.to_seq > j.pushed_seq and (
            excluded.to_seq > j.to_seq
            or excluded.from_seq < j.from_seq
               and case j.state when 'done' then excluded.to_seq < j.from_seq
                                when 'in_flight' then false else true end
        )
        returning j.conversation_id, j.user_id, j.device_id
    ), superseded as (
        -- What is new takes the place of what is shown. One that is being claimed may leave.
        delete from push_jobs c using (
            select c.conversation_id, c.user_id, c.device_id
            from armed a join push_jobs c on c.conversation_id = a.conversation_id
                and c.user_id = a.user_id and c.device_id = a.device_id and c.kind = 'clear'
            where c.state in ('armed', 'backoff')
            for update of c skip locked
        ) s
        where c.conversation_id = s.conversation_id and c.user_id = s.user_id
          and c.device_id = s.device_id and c.kind = 'clear'
        returning c.*
    ), silenced as (
        select j.conversation_id, j.user_id, j.device_id, j.route, j.silence, min(j.from_seq) as from_seq,
               max(j.to_seq) as to_seq, min(j.committed_at) as committed_at
        from judged j
        where is_late and j.silence is not null
        group by j.conversation_id, j.user_id, j.device_id, j.route, j.silence
    ), noted as (
        insert into push_attempts (conversation_id, user_id, device_id, kind, from_seq, to_seq, outcome,
                                   reason, route, notification_id, committed_at, decided_at)
        select s.conversation_id, s.user_id, s.device_id, 'wake', s.from_seq, s.to_seq, 'suppressed',
               s.silence, s.route, null::uuid, s.committed_at, moment
        from silenced s
        union all
        select c.conversation_id, c.user_id, c.device_id, 'clear', c.from_seq, c.to_seq, 'cancelled',
               'superseded', c.route, c.notification_id, c.committed_at, moment
        from superseded c
    )
    select (select count(*) from armed), (select count(*) from silenced);
end
$$;

-- Arms the removal of what devices show: notifications of messages that the user has read
-- elsewhere. Arrays: whose reading, in which conversation.
create function arm_push_clear(conversation_ids uuid[], user_ids bigint[], at timestamptz)
returns void
language plpgsql as $$
#variable_conflict use_column
begin
    insert into push_jobs as c (conversation_id, user_id, device_id, kind, route, state, from_seq, to_seq,
                                committed_at, due_at)
    select j.conversation_id, j.user_id, j.device_id, 'clear', j.route, 'armed', j.pushed_seq, p.read_seq,
           coalesce(at, now()), coalesce(at, now())
    from (select distinct i.* from unnest(conversation_ids, user_ids) as i (conversation_id, user_id)) i
    cross join lateral (
        select j.* from push_jobs j
        where j.conversation_id = i.conversation_id and j.user_id = i.user_id offset 0
    ) j
    cross join lateral (
        select p.read_seq from participants p
        where p.conversation_id = i.conversation_id and p.user_id = i.user_id limit 1
    ) p
    where j.kind = 'wake' and j.pushed_seq > 0 and j.pushed_seq <= p.read_seq
      -- Not if a notification is about to take its place.
      and (j.state = 'done' or j.state <> 'in_flight' and j.to_seq <= p.read_seq)
    order by j.conversation_id, j.user_id, j.device_id
    on conflict (conversation_id, user_id, device_id, kind) do update
    set state = case c.state when 'done' then 'armed' else c.state end,
        route = excluded.route,
        from_seq = case c.state when 'done' then excluded.from_seq else c.from_seq end,
        to_seq = greatest(c.to_seq, excluded.to_seq),
        committed_at = case c.state when 'done' then excluded.committed_at else c.committed_at end,
        due_at = case c.state when 'done' then excluded.due_at else c.due_at end,
        attempts = case c.state when 'done' then 0 else c.attempts end,
        postponed = case c.state when 'done' then null else c.postponed end,
        notification_id = case c.state when 'done' then excluded.notification_id else c.notification_id end
    -- What it tells of is removed already, or soon.
    where c.to_seq < excluded.from_seq;
end
$$;

-- Takes the jobs of a route that are due: ends those that have nothing to tell any more, moves
-- those that must wait, and hands out the others until the lease is over. One transaction,
-- so that a crash leaves a job either as it was, or claimed. This one waits for the disk, and
-- with it for all that arm_push() and finish_push() did before: what leaves next is known under
-- its id after any crash.
--
-- Locks are taken in this order everywhere: jobs to wake, jobs to clear, tokens.
create function claim_push(
    wanted_route text, jobs_max bigint, lease interval,
    grace_offline interval, grace_connected interval, grace_elsewhere interval, repeat_interval interval,
    budget_burst double precision, budget_interval interval, time_to_live interval, with_badge boolean, at timestamptz
) returns table (
    conversation_id uuid, user_id bigint, device_id bigint, kind text, claim bigint, from_seq bigint,
    to_seq bigint, is_urgent boolean, is_mention boolean, expires_at timestamptz, committed_at timestamptz,
    attempts integer, notification_id uuid, token text, voip_token text, p256dh text, auth text,
    locale text, registered_at timestamptz, background_at timestamptz,
    conversation_kind text, title text, message_type text, sender text, body bytea, badge bigint
)
language plpgsql as $$
#variable_conflict use_column
declare
    moment timestamptz := coalesce(at, now());
    conversations_due uuid[];
    users_due bigint[];
    devices_due bigint[];
    kinds_due text[];
    may_be_shown boolean;
begin
    with due as (
        select j.conversation_id, j.user_id, j.device_id, j.kind, j.state, j.attempts from push_jobs j
        where j.route = wanted_route and j.due_at <= moment
        order by j.due_at limit jobs_max for no key update skip locked
    )
    select array_agg(d.conversation_id), array_agg(d.user_id), array_agg(d.device_id), array_agg(d.kind),
           bool_or(d.kind = 'wake' and (d.state = 'in_flight' or d.attempts > 0))
    into conversations_due, users_due, devices_due, kinds_due, may_be_shown from due d;
    if conversations_due is null then
        return;
    end if;
    -- Their buckets are emptied one claim after the other.
    perform 1 from push_tokens t where t.device_id = any (devices_due)
    order by t.device_id for no key update;

    -- A younger snapshot than the locks. `limit 1` makes a look-up of each sub-query, whatever
    -- the planner knows of the tables.
    return query
    with held as (
        select j.*, u.quiet_from, u.quiet_until, u.quiet_zone, m.created_at as newest_at,
               j.is_urgent or j.next_is_urgent as breaks_quiet,
               j.is_mention or j.next_is_mention as names_user,
               case when j.next_from_seq is null then j.expires_at
                    when num_nulls(j.expires_at, j.next_expires_at) = 0
                    then greatest(j.expires_at, j.next_expires_at) end as ends_at,
               t.device_id is not null as has_token, t.dead_since, t.route as token_route,
               t.budget, t.budget_at, p.user_id is not null as is_participant, p.joined_seq, p.read_seq,
               p.muted_until, p.mentions_break_mute, coalesce(d.delivered_seq, 0) as delivered_seq,
               coalesce(s.is_reachable, false) as is_reachable, s.connected_at
        from unnest(conversations_due, users_due, devices_due, kinds_due)
            as k (conversation_id, user_id, device_id, kind)
        join push_jobs j on j.conversation_id = k.conversation_id and j.user_id = k.user_id
            and j.device_id = k.device_id and j.kind = k.kind
        left join lateral (
            select u.* from users u where u.user_id = j.user_id limit 1
        ) u on true
        left join lateral (
            select t.* from push_tokens t
            where t.device_id = j.device_id and t.user_id = j.user_id limit 1
        ) t on true
        left join lateral (
            select p.* from participants p
            where p.conversation_id = j.conversation_id and p.user_id = j.user_id
              and p.left_seq is null
            limit 1
        ) p on true
        left join lateral (
            select d.delivered_seq from device_cursors d
            where d.conversation_id = j.conversation_id and d.device_id = j.device_id limit 1
        ) d on true
        left join lateral (
            select s.* from device_presence s where s.device_id = j.device_id limit 1
        ) s on true
        left join lateral (
            select m.created_at from messages m
            where m.conversation_id = j.conversation_id and m.seq = j.to_seq limit 1
        ) m on true
    ), fresh as (
        -- What has been settled meanwhile is told of no more.
        select h.*, f.first_seq, case when f.first_seq = h.from_seq then h.committed_at
            else coalesce((select m.created_at from messages m
                           where m.conversation_id = h.conversation_id and m.seq = f.first_seq), h.committed_at)
            end as first_at
        from held h cross join lateral (
            select case h.kind
                when 'wake' then least(greatest(h.from_seq, h.delivered_seq + 1, h.read_seq + 1), h.to_seq)
                else h.from_seq end as first_seq
        ) f
    ), timed as (
        select f.*, case f.kind when 'wake' then greatest(push_due(
                f.first_at, f.is_reachable,
                exists (
                    select from (
                        select o.device_id from devices o where o.user_id = f.user_id offset 0
                    ) o cross join lateral (
                        select s.is_active from device_presence s where s.device_id = o.device_id limit 1
                    ) s
                    where o.device_id <> f.device_id and s.is_active
                ),
                f.connected_at, grace_offline, grace_connected, grace_elsewhere
            ), f.pushed_at + repeat_interval) else f.due_at end as grace_ends_at
        from fresh f
    ), judged as (
        select t.*, case
            when not t.has_token then 'cancelled no_token'
            when t.dead_since is not null then 'cancelled token_dead'
            when t.token_route <> t.route then 'moved'
            when case t.kind when 'wake' then coalesce(t.newest_at, t.committed_at) else t.committed_at end
                 + time_to_live <= moment then 'cancelled time_to_live'
            when t.kind = 'clear' then case
                when t.is_reachable then 'suppressed connected'
                when t.route like 'webpush:%' then 'suppressed webpush'
                else 'sent' end
            when not t.is_participant or t.joined_seq > t.to_seq then 'cancelled removed'
            when t.read_seq >= t.to_seq then 'cancelled read'
            when t.delivered_seq >= t.to_seq then 'cancelled acknowledged'
            when t.ends_at <= moment then 'cancelled expired'
            when t.muted_until > moment and not (t.names_user and t.mentions_break_mute)
                then 'suppressed muted'
            when t.grace_ends_at > moment then 'moved'
            when t.quiet_from is not null and not t.breaks_quiet
                 and push_quiet_until(t.quiet_from, t.quiet_until, t.quiet_zone, moment) is not null
                then 'postponed quiet_hours'
            else 'sent' end as verdict
        from timed t
    ), placed as (
        -- What is left in the bucket, and which notification of the device each job would be;
        -- up to twenty conversations are cleared by one.
        select j.*,
            case j.kind
                when 'wake' then row_number() over (partition by j.device_id, j.verdict, j.kind
                                                    order by j.breaks_quiet desc, j.due_at,
                                                             j.conversation_id)
                else count(*) filter (where j.kind = 'wake') over (partition by j.device_id, j.verdict)
                     + (row_number() over (partition by j.device_id, j.verdict, j.kind
                                           order by j.due_at, j.conversation_id) + 19) / 20
                end as place,
            least(budget_burst, coalesce(j.budget, budget_burst) + greatest(0, extract(epoch from
                moment - coalesce(j.budget_at, moment)) / extract(epoch from budget_interval)))::float8 as level
        from judged j
    ), decided as materialized (
        select p.*,
            case when p.verdict <> 'sent' or p.place <= p.level then split_part(p.verdict, ' ', 1)
                 else 'postponed' end as outcome,
            case when p.verdict <> 'sent' or p.place <= p.level then split_part(p.verdict, ' ', 2)
                 else 'budget' end as reason
        from placed p
    ), updated as (
        update push_jobs j
        set state = case d.outcome when 'sent' then 'in_flight' when 'cancelled' then 'done'
                    when 'suppressed' then 'done' else j.state end,
            route = coalesce(d.token_route, j.route),
            due_at = case d.outcome
                when 'sent' then moment + lease
                when 'moved' then case when d.token_route <> d.route then moment else d.grace_ends_at end
                when 'postponed' then case d.reason
                    when 'budget' then moment + (d.place - d.level) * budget_interval
                    else push_quiet_until(d.quiet_from, d.quiet_until, d.quiet_zone, moment) end
                end,
            postponed = case d.outcome when 'postponed' then d.reason when 'sent' then j.postponed
                        when 'moved' then j.postponed end,
            from_seq = case d.outcome when 'sent' then d.first_seq else j.from_seq end,
            committed_at = case d.outcome when 'sent' then d.first_at else j.committed_at end,
            claim = j.claim + (d.outcome = 'sent')::integer,
            claimed_seq = case d.outcome when 'sent' then d.to_seq else j.claimed_seq end,
            claimed_at = case d.outcome when 'sent' then moment else j.claimed_at end,
            -- Whoever held it may have sent it; what failed may have arrived.
            pushed_seq = case when j.state = 'in_flight' or j.attempts > 0 and d.outcome = 'cancelled'
                         then greatest(j.pushed_seq, j.claimed_seq) else j.pushed_seq end,
            attempts = j.attempts + (d.outcome = 'sent' and j.state = 'in_flight')::integer,
            is_urgent = case d.outcome when 'sent' then d.breaks_quiet else j.is_urgent end,
            is_mention = case d.outcome when 'sent' then d.names_user else j.is_mention end,
            expires_at = case d.outcome when 'sent' then d.ends_at else j.expires_at end,
            next_from_seq = case when d.outcome in ('moved', 'postponed') then j.next_from_seq end,
            next_is_urgent = d.outcome in ('moved', 'postponed') and j.next_is_urgent,
            next_is_mention = d.outcome in ('moved', 'postponed') and j.next_is_mention,
            next_expires_at = case when d.outcome in ('moved', 'postponed') then j.next_expires_at end,
            next_committed_at = case when d.outcome in ('moved', 'postponed') then j.next_committed_at end
        from decided d
        where j.conversation_id = d.conversation_id and j.user_id = d.user_id
          and j.device_id = d.device_id and j.kind = d.kind
        returning j.conversation_id, j.user_id, j.device_id, j.kind, j.claim, j.attempts
    ), charged as (
        update push_tokens t set budget = (c.level - c.used)::real, budget_at = moment
        from (
            select d.device_id, max(d.level) as level, max(d.place) as used
            from decided d where d.outcome = 'sent' group by d.device_id
        ) c
        where t.device_id = c.device_id
    ), noted as (
        insert into push_attempts (conversation_id, user_id, device_id, kind, from_seq, to_seq, outcome,
                                   reason, route, notification_id, committed_at, claimed_at, decided_at)
        select d.conversation_id, d.user_id, d.device_id, d.kind, d.from_seq, d.to_seq, n.outcome, n.reason,
               d.route, d.notification_id, d.committed_at, d.claimed_at, moment
        from decided d cross join lateral (
            -- Who held it never said what became of it.
            select 'retry', 'lease_expired' where d.state = 'in_flight' and d.outcome <> 'moved'
                and (d.outcome <> 'postponed' or d.postponed is null)
            union all
            select d.outcome, d.reason
            where d.outcome in ('cancelled', 'suppressed')
               or d.outcome = 'postponed' and d.postponed is distinct from d.reason
        ) as n (outcome, reason)
    )
    select d.conversation_id, d.user_id, d.device_id, d.kind, u.claim, d.first_seq, d.to_seq, d.breaks_quiet,
           d.names_user, d.ends_at, d.first_at, u.attempts, d.notification_id, t.token, t.voip_token,
           t.p256dh, t.auth, t.locale, t.registered_at, t.background_at,
           c.kind, c.title, m.type, s.subject, substring(m.body from 1 for 2048), b.unread
    from decided d
    join push_tokens t on t.device_id = d.device_id
    join updated u on u.conversation_id = d.conversation_id and u.user_id = d.user_id
        and u.device_id = d.device_id and u.kind = d.kind
    left join lateral (
        select c.kind, c.title from conversations c
        where c.conversation_id = d.conversation_id limit 1
    ) c on true
    left join lateral (
        select m.type, m.sender_id, m.body from messages m
        where d.kind = 'wake' and m.conversation_id = d.conversation_id and m.seq = d.to_seq limit 1
    ) m on true
    left join lateral (
        select s.subject from users s where s.user_id = m.sender_id limit 1
    ) s on true
    left join lateral (
        -- Unread messages, wherever the user has not muted; it counts no further than 999.
        select count(*) as unread from (
            select from participants p
            cross join lateral (
                select c.last_ordinal from conversations c
                where c.conversation_id = p.conversation_id limit 1
            ) c
            cross join lateral (
                select from messages m
                where m.conversation_id = p.conversation_id and m.ordinal is not null
                  and m.seq > greatest(p.read_seq, p.joined_seq - 1) and m.sender_id <> p.user_id
                order by m.seq limit 999
            ) m
            where with_badge and p.user_id = d.user_id and p.left_seq is null
              and c.last_ordinal > p.read_ordinal and coalesce(p.muted_until <= moment, true)
            limit 999
        ) n
        where with_badge
    ) b on true
    where d.outcome = 'sent'
    order by d.due_at;

    -- What has been read and may have been sent, though nobody knows.
    if may_be_shown then
        perform arm_push_clear(conversations_due, users_due, moment);
    end if;
end
$$;

-- What became of claimed jobs. outcome: 'sent', 'retry', 'dead', 'dropped', 'suppressed',
-- 'released' or 'postponed'. Whoever holds an older claim changes nothing. Returns how many were finished.
create function finish_push(
    conversation_ids uuid[], user_ids bigint[], device_ids bigint[], kinds text[], claims bigint[],
    outcomes text[], reasons text[], waits interval[], tokens text[], since timestamptz[],
    are_background boolean[], repeat_interval interval, at timestamptz
) returns bigint
language plpgsql as $$
#variable_conflict use_column
declare
    moment timestamptz := coalesce(at, now());
    finished bigint;
begin
    -- No fsync: what a crash of the database forgets is sent again when the lease is over, under
    -- the same id; the next claim waits for the disk.
    perform set_config('synchronous_commit', 'off', true);

    perform 1
    from unnest(conversation_ids, user_ids, device_ids, kinds, claims)
        as i (conversation_id, user_id, device_id, kind, claim)
    join push_jobs j on j.conversation_id = i.conversation_id and j.user_id = i.user_id
        and j.device_id = i.device_id and j.kind = i.kind
    where j.claim = i.claim and j.state = 'in_flight'
    order by j.kind desc, j.conversation_id, j.user_id, j.device_id for no key update of j;
    perform 1 from push_tokens t where t.device_id = any (device_ids)
    order by t.device_id for no key update;

    -- A younger snapshot than the locks.
    with held as (
        select j.*, i.outcome, i.reason, i.wait, i.token, i.is_background, t.registered_at,
               t.device_id is not null as has_token, t.token as token_now, t.voip_token as voip_now,
               coalesce(i.since > t.registered_at, true) as is_later
        from unnest(conversation_ids, user_ids, device_ids, kinds, claims, outcomes, reasons, waits,
                    tokens, since, are_background)
            as i (conversation_id, user_id, device_id, kind, claim, outcome, reason, wait, token, since,
                  is_background)
        join push_jobs j on j.conversation_id = i.conversation_id and j.user_id = i.user_id
            and j.device_id = i.device_id and j.kind = i.kind
        left join lateral (
            select t.* from push_tokens t
            where t.device_id = j.device_id and t.user_id = j.user_id limit 1
        ) t on true
        where j.claim = i.claim and j.state = 'in_flight'
    ), judged as materialized (
        -- The provider may speak of a token that has been replaced, or registered again since.
        select h.*, case
                when h.outcome <> 'dead' then h.outcome
                when not h.has_token then 'dead'
                when h.token is distinct from h.token_now and h.token is distinct from h.voip_now then 'again'
                when not h.is_later then 'dropped'
                when h.token is distinct from h.token_now then 'again'
                else 'dead' end as fate,
            h.to_seq > h.claimed_seq as has_more
        from held h
    ), updated as (
        update push_jobs j
        set state = case
                when f.next_state = 'rearmed' then 'armed' else f.next_state end,
            due_at = case f.next_state
                when 'done' then null
                when 'rearmed' then moment + repeat_interval
                else moment + coalesce(f.wait, interval '0') end,
            from_seq = case f.next_state when 'rearmed' then coalesce(j.next_from_seq, j.claimed_seq + 1)
                       else j.from_seq end,
            committed_at = case f.next_state when 'rearmed' then coalesce(j.next_committed_at, moment)
                           else j.committed_at end,
            is_urgent = case f.next_state when 'rearmed' then j.next_is_urgent
                        else j.is_urgent or j.next_is_urgent end,
            is_mention = case f.next_state when 'rearmed' then j.next_is_mention
                         else j.is_mention or j.next_is_mention end,
            expires_at = case
                when f.next_state = 'rearmed' then j.next_expires_at
                when j.next_from_seq is null then j.expires_at
                when num_nulls(j.expires_at, j.next_expires_at) = 0
                then greatest(j.expires_at, j.next_expires_at) end,
            next_from_seq = null, next_is_urgent = false, next_is_mention = false,
            next_expires_at = null, next_committed_at = null,
            notification_id = case f.next_state when 'rearmed' then gen_random_uuid()
                              else j.notification_id end,
            attempts = case when f.next_state = 'rearmed' then 0
                            else j.attempts + (f.fate = 'retry')::integer end,
            postponed = case f.fate when 'postponed' then f.reason when 'released' then j.postponed end,
            claimed_seq = case f.fate when 'retry' then j.claimed_seq end,
            pushed_seq = case f.fate when 'sent' then greatest(j.pushed_seq, j.claimed_seq)
                         else j.pushed_seq end,
            pushed_at = case f.fate when 'sent' then moment else j.pushed_at end
        from (
            select u.*, case
                when u.fate in ('sent', 'dropped', 'suppressed') then case when u.has_more then 'rearmed' else 'done' end
                when u.fate = 'retry' then 'backoff'
                when u.fate in ('released', 'postponed') and u.attempts > 0 then 'backoff'
                when u.fate in ('released', 'postponed', 'again') then 'armed'
                else 'done' end as next_state
            from judged u
        ) f
        where j.conversation_id = f.conversation_id and j.user_id = f.user_id
          and j.device_id = f.device_id and j.kind = f.kind
        returning 1
    ), settled as (
        update push_tokens t
        set background_at = case when c.is_background then moment else t.background_at end,
            budget = t.budget + c.refund,
            dead_since = case when c.dead_reason is not null then coalesce(t.dead_since, moment)
                         else t.dead_since end,
            dead_reason = coalesce(t.dead_reason, c.dead_reason),
            voip_token = case when c.is_voip_dead then null else t.voip_token end
        from (
            select j.device_id, bool_or(j.fate = 'sent' and j.is_background) as is_background,
                   -- Conversations that are cleared together have cost one.
                   count(distinct (j.kind, case j.kind when 'wake' then j.conversation_id end))
                       filter (where j.fate in ('released', 'postponed', 'suppressed')) as refund,
                   max(j.reason) filter (where j.fate = 'dead' and j.has_token) as dead_reason,
                   coalesce(bool_or(j.outcome = 'dead' and j.fate = 'again' and j.token = j.voip_now), false)
                       as is_voip_dead
            from judged j where j.has_token group by j.device_id
        ) c
        where t.device_id = c.device_id
          and (c.is_background or c.refund > 0 or c.dead_reason is not null or c.is_voip_dead)
    ), noted as (
        insert into push_attempts (conversation_id, user_id, device_id, kind, from_seq, to_seq, outcome,
                                   reason, route, notification_id, committed_at, claimed_at, decided_at)
        select j.conversation_id, j.user_id, j.device_id, j.kind, j.from_seq,
               case j.fate when 'dead' then j.to_seq else j.claimed_seq end,
               case j.fate when 'again' then 'retry' else j.fate end, j.reason, j.route, j.notification_id,
               j.committed_at, j.claimed_at, moment
        from judged j
        where j.fate <> 'released'
          and (j.fate <> 'postponed' or j.postponed is distinct from j.reason)
    )
    select count(*) into finished from updated;

    -- What has been read while it was on its way.
    perform arm_push_clear(
        (select array_agg(i.conversation_id) from unnest(conversation_ids, outcomes, kinds)
             as i (conversation_id, outcome, kind) where i.outcome = 'sent' and i.kind = 'wake'),
        (select array_agg(i.user_id) from unnest(user_ids, outcomes, kinds)
             as i (user_id, outcome, kind) where i.outcome = 'sent' and i.kind = 'wake'),
        moment
    );
    return finished;
end
$$;

-- As before; and what has been read is removed from the devices that show it.
create or replace function settle(
    device_ids bigint[], user_ids bigint[], conversation_ids uuid[], delivered_seqs bigint[], read_seqs bigint[]
) returns table (conversation_id uuid, user_id bigint, delivered_seq bigint, read_seq bigint)
language plpgsql as $$
#variable_conflict use_column
declare
    has_read boolean := cardinality(array_remove(read_seqs, null)) > 0;
begin
    -- What has been delivered is told again after a crash; what has been read may not be.
    if not has_read then
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

    -- What has been read needs no notification any more, on any device.
    if has_read then
        perform arm_push_clear(conversation_ids, user_ids, now());
    end if;
end
$$;

-- Takes back that tokens of a route died since a moment, and arms what could not be told.
create function revive_push_tokens(wanted_route text, since timestamptz, at timestamptz) returns bigint
language plpgsql as $$
#variable_conflict use_column
declare
    moment timestamptz := coalesce(at, now());
    revived bigint[];
begin
    select array_agg(t.device_id order by t.device_id) into revived
    from push_tokens t where t.dead_since >= since and t.route = wanted_route;
    if revived is null then
        return 0;
    end if;

    -- Jobs before tokens, as everywhere.
    perform 1 from push_jobs j where j.device_id = any (revived) and j.kind = 'wake'
    order by j.conversation_id, j.user_id, j.device_id for no key update;

    -- The claim ends what has been settled since.
    update push_jobs j
    set state = 'armed', due_at = moment, route = wanted_route, attempts = 0, postponed = null,
        notification_id = gen_random_uuid()
    from (
        select j.conversation_id, j.user_id, j.device_id
        from push_jobs j cross join lateral (
            select from push_attempts a
            where a.conversation_id = j.conversation_id and a.user_id = j.user_id
              and a.device_id = j.device_id and a.decided_at >= since and a.to_seq = j.to_seq
              and (a.outcome = 'dead' or a.reason = 'token_dead')
            limit 1
        ) a
        where j.device_id = any (revived) and j.kind = 'wake' and j.state = 'done'
          and j.pushed_seq < j.to_seq
    ) m
    where j.conversation_id = m.conversation_id and j.user_id = m.user_id
      and j.device_id = m.device_id and j.kind = 'wake';

    update push_tokens t set dead_since = null, dead_reason = null
    where t.device_id = any (revived) and t.dead_since >= since;
    return cardinality(revived);
end
$$;

-- Ends jobs whose routes are not among those that are served.
create function end_unrouted_push(routes text[], jobs_max bigint, at timestamptz) returns bigint
language plpgsql as $$
#variable_conflict use_column
declare
    ended bigint;
begin
    with recursive used as (
        -- From one route to the next, not from one job to the next.
        (select j.route from push_jobs j where j.due_at is not null order by j.route limit 1)
        union all
        select (select j.route from push_jobs j
                where j.route > u.route and j.due_at is not null order by j.route limit 1)
        from used u where u.route is not null
    ), lost as (
        select j.* from used u cross join lateral (
            select j.* from push_jobs j
            where j.route = u.route and j.due_at is not null
            order by j.due_at limit jobs_max for no key update skip locked
        ) j
        where u.route <> all (routes)
        limit jobs_max
    ), updated as (
        update push_jobs j set state = 'done', due_at = null, postponed = null
        from lost l
        where j.conversation_id = l.conversation_id and j.user_id = l.user_id
          and j.device_id = l.device_id and j.kind = l.kind
        returning 1
    ), noted as (
        insert into push_attempts (conversation_id, user_id, device_id, kind, from_seq, to_seq, outcome,
                                   reason, route, notification_id, committed_at, claimed_at, decided_at)
        select l.conversation_id, l.user_id, l.device_id, l.kind, l.from_seq, l.to_seq, 'dropped',
               'no_route', l.route, l.notification_id, l.committed_at, l.claimed_at, coalesce(at, now())
        from lost l
    )
    select count(*) into ended from updated;
    return ended;
end
$$;
