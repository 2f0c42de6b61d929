-- What people need of conversations beside the log: an inbox, changes of what was said,
-- rights, settings. Still no message costs a row for each recipient.

alter table users
    -- Whether others are told how far the user has got.
    add column receipts boolean not null default true,
    -- Who may learn when the user was last connected: those they share a conversation with, or nobody.
    add column last_seen text not null default 'contacts' check (last_seen in ('contacts', 'nobody')),
    -- Shown as absent to everybody, whatever the devices say.
    add column is_invisible boolean not null default false;

alter table conversations
    -- The newest entry that has an ordinal; 0 while there is none.
    add column last_message_seq bigint not null default 0,
    -- How many entries before their own beginning newcomers may see; null is all of them.
    add column history_depth bigint check (history_depth >= 0),
    -- Whether participants are told how far the others have got.
    add column receipts boolean not null default true,
    -- Closed for everybody: it is read, nothing more is written.
    add column archived_at timestamptz,
    -- Contents older than this many seconds are erased; null keeps them.
    add column retention_seconds bigint check (retention_seconds > 0),
    -- Contents before this entry have been erased by that.
    add column first_seq bigint not null default 1;

-- Newcomers saw nothing of before, until now.
update conversations set history_depth = 0,
    last_message_seq = coalesce((
        select m.seq from messages m
        where m.conversation_id = conversations.conversation_id and m.ordinal is not null
        order by m.seq desc limit 1
    ), 0);

alter table participants
    -- The first entry the user may read; what is delivered begins with joined_seq.
    add column visible_from bigint not null default 1 check (visible_from >= 1),
    -- May not write before this: a decision of an owner or an admin.
    add column silenced_until timestamptz,
    -- May not write: the other one of a direct conversation has blocked the user.
    add column is_blocked boolean not null default false,
    -- Pinned in the user's inbox, the latest first.
    add column pinned_at timestamptz,
    -- Archived by the user, until there is a message after this entry (unless it is muted).
    add column archived_seq bigint,
    -- Rises with each change of this row that the user's inbox shows. With the head of the log
    -- it makes the version of the inbox row: last_seq + own_version.
    add column own_version bigint not null default 0,
    -- When that was.
    add column changed_at timestamptz not null default now();

update participants set visible_from = joined_seq;

alter table messages
    -- The entry that changed this one last (edit, retraction, reaction); null if none did.
    add column version bigint,
    -- The entry with the newest content; null if it was never edited.
    add column edit_seq bigint,
    -- The entry that retracted it. The content is gone then, here and in its edits.
    add column retract_seq bigint,
    -- When the content is to be erased; null keeps it.
    add column expires_at timestamptz;

create index messages_changed on messages (conversation_id, version) where version is not null;
create index messages_expiry on messages (expires_at) where expires_at is not null;

-- Who reacted how to what: the result of all reactions in the log.
create table reactions (
    conversation_id uuid not null,
    -- The entry reacted to.
    seq bigint not null,
    key text not null,
    user_id bigint not null,
    -- The entry that says so.
    at_seq bigint not null,
    primary key (conversation_id, seq, key, user_id)
);

-- Whom messages mention: a row for each mentioned participant.
create table mentions (
    conversation_id uuid not null,
    user_id bigint not null,
    seq bigint not null,
    primary key (conversation_id, user_id, seq)
);

-- Whom users do not want to hear of.
create table blocks (
    user_id bigint not null references users,
    blocked_id bigint not null references users,
    created_at timestamptz not null default now(),
    primary key (user_id, blocked_id)
);

create index blocks_blocked on blocks (blocked_id, user_id);

-- There is one direct conversation of two users.
create table direct_conversations (
    low_id bigint not null references users,
    high_id bigint not null references users,
    conversation_id uuid not null,
    primary key (low_id, high_id),
    check (low_id < high_id)
);

insert into direct_conversations (low_id, high_id, conversation_id)
select distinct on (min(p.user_id), max(p.user_id)) min(p.user_id), max(p.user_id), c.conversation_id
from conversations c join participants p on p.conversation_id = c.conversation_id
where c.kind = 'direct'
group by c.conversation_id, c.created_at
having count(*) = 2
order by min(p.user_id), max(p.user_id), c.created_at;

-- What was answered to requests that may come again.
create table idempotency_keys (
    user_id bigint not null references users,
    key text not null,
    -- SHA-256 of the request: the same key may not stand for another one.
    request_hash bytea not null,
    -- Null while it is worked on.
    status smallint,
    body bytea,
    created_at timestamptz not null default now(),
    primary key (user_id, key)
);

create index idempotency_keys_age on idempotency_keys (created_at);

alter table devices
    -- Tokens issued before this no longer connect the device.
    add column signed_out_at timestamptz,
    -- How payloads are written to it, unless it says so itself: json or cbor.
    add column format text not null default 'json' check (format in ('json', 'cbor'));

alter table device_cursors
    -- How far the user has read on this device.
    add column read_seq bigint not null default 0;
