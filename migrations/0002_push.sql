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
    -- to_seq at the claim.
    claimed_seq bigint,
    -- The id of the notification: the same for every attempt.
    notification_id uuid not null default gen_random_uuid(),
    -- The newest message that a notification has told of; 0 if none did.
    pushed_seq bigint not null default 0,
    pushed_at timestamptz,
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
