-- What a row of the inbox shows changes without an entry when contents are erased, and when a
-- mute ends: then, too, its version rises.

alter table conversations
    -- How often contents have been erased because their time was over: part of the version of the
    -- rows of all who take part, so that one write tells them all.
    add column erasures bigint not null default 0,
    -- When that was last. Not `updated_at`: nothing has happened that moves a conversation up.
    add column erased_at timestamptz;

-- Mutes whose end changes whether a conversation is archived.
create index participants_mute_end on participants (muted_until)
    where archived_seq is not null and left_seq is null and muted_until < 'infinity';

-- Whether a conversation is put away: until the next message, or for as long as it is muted.
create function is_archived(
    archived_seq bigint, last_message_seq bigint, muted_until timestamptz, at timestamptz
)
returns boolean language sql immutable as $$
    select coalesce(archived_seq >= last_message_seq or (archived_seq is not null and muted_until > at), false)
$$;

-- The version of a row of the inbox: it rises with the log, with the user's own changes, and with
-- erasures. That of somebody who was removed rises no more; those until then are counted into
-- `own_version` when they go.
create function row_version(last_seq bigint, left_seq bigint, own_version bigint, erasures bigint)
returns bigint language sql immutable as $$
    select case when left_seq is null then last_seq + own_version + erasures
                else least(last_seq, left_seq) + own_version end
$$;

-- As before, with that version, and the time at which the newest message expires.
drop function inbox_row(bigint, uuid);
create function inbox_row(owner bigint, conversation uuid)
returns table (
    conversation_id uuid, user_id bigint, is_removed boolean, version bigint,
    kind text, title text, other text, epoch integer, first_seq bigint, last_seq bigint,
    activity_at timestamptz, receipts boolean, history_depth bigint, retention_seconds bigint, closed_at timestamptz,
    message_seq bigint, message_from text, message_at timestamptz, message_type text,
    message_body bytea, message_is_retracted boolean, message_is_expired boolean, message_expires_at timestamptz,
    unread bigint, mentions bigint, read_seq bigint, delivered_seq bigint, role text,
    muted_until timestamptz, mentions_break_mute boolean, silenced_until timestamptz,
    pinned_at timestamptz, is_archived boolean
)
language sql stable as $$
    -- `limit 1` makes a look-up of each sub-query, whatever the planner knows of the tables.
    select p.conversation_id, p.user_id, p.left_seq is not null,
           row_version(c.last_seq, p.left_seq, p.own_version, c.erasures),
           c.kind, c.title, o.subject, c.epoch, s.low, least(c.last_seq, p.left_seq),
           c.updated_at, c.receipts, c.history_depth, c.retention_seconds, c.archived_at,
           m.seq, m.subject, m.created_at, m.type,
           m.body, m.retract_seq is not null, m.expires_at <= now() or m.content_format < 0,
           m.expires_at,
           case when s.has_news then (
               select count(*) from (
                   select from messages u
                   where u.conversation_id = p.conversation_id and u.seq > s.after
                     and is_unread(u.ordinal, u.sender_id, u.retract_seq, u.content_format, u.expires_at,
                                   p.user_id, now())
                   order by u.seq limit 1000
               ) u
           ) else 0 end,
           case when s.has_news then (
               select count(*) from (
                   select from mentions n
                   cross join lateral (
                       select u.seq from messages u
                       where u.conversation_id = p.conversation_id and u.seq = n.seq
                         and is_unread(u.ordinal, u.sender_id, u.retract_seq, u.content_format, u.expires_at,
                                       p.user_id, now())
                       limit 1
                   ) u
                   where n.conversation_id = p.conversation_id and n.user_id = p.user_id
                     and n.seq > s.after
                   order by n.seq limit 1000
               ) n
           ) else 0 end,
           p.read_seq, p.delivered_seq, p.role,
           p.muted_until, p.mentions_break_mute, p.silenced_until, p.pinned_at,
           is_archived(p.archived_seq, c.last_message_seq, p.muted_until, now())
    from participants p
    cross join lateral (
        select * from conversations c where c.conversation_id = p.conversation_id limit 1
    ) c
    cross join lateral (
        select greatest(p.visible_from, c.first_seq) as low,
               greatest(p.read_seq, p.visible_from - 1, c.first_seq - 1) as after,
               p.left_seq is null
               and c.last_message_seq > greatest(p.read_seq, p.visible_from - 1, c.first_seq - 1)
                   as has_news
    ) s
    -- The other one of a direct conversation.
    left join lateral (
        select u.subject
        from (
            select o.user_id from participants o
            where c.kind = 'direct' and o.conversation_id = p.conversation_id
              and o.user_id <> p.user_id
            order by o.user_id limit 1
        ) o
        cross join lateral (select u.subject from users u where u.user_id = o.user_id limit 1) u
    ) o on true
    -- The newest message, with its newest content. The beginning is enough for a preview.
    left join lateral (
        select m.seq, u.subject, m.created_at, m.type, m.retract_seq, m.expires_at, m.content_format,
               case when m.retract_seq is null then (
                   select substring(e.body for 2500) from messages e
                   where e.conversation_id = p.conversation_id
                     and e.seq = coalesce(m.edit_seq, m.seq)
                     and e.content_format = 0 and substring(e.body for 1) = '"'
                   limit 1
               ) end as body
        from (
            select m.* from messages m
            where p.left_seq is null and c.last_message_seq >= s.low
              and m.conversation_id = p.conversation_id and m.seq = c.last_message_seq
            limit 1
        ) m
        cross join lateral (select u.subject from users u where u.user_id = m.sender_id limit 1) u
    ) m on true
    where p.user_id = owner and p.conversation_id = conversation
$$;
