-- The inbox of a user, and the place of a time in a log. Nothing here is written when a
-- message is stored: the order, the counts and the previews are derived when they are asked for.

-- Most pages of an inbox show what is not archived. Then the index alone says which
-- conversations those are, and the rest is one look-up for each.
create index participants_inbox on participants (user_id, conversation_id)
    where left_seq is null and archived_seq is null;
create index participants_archived on participants (user_id, conversation_id)
    where left_seq is null and archived_seq is not null;

-- What one user's inbox shows of one conversation; no row if the user never took part.
--
-- Somebody who was removed gets a row too: `is_removed`, and a version that rises no more.
create function inbox_row(owner bigint, conversation uuid)
returns table (
    conversation_id uuid, user_id bigint, is_removed boolean, version bigint,
    kind text, title text, other text, epoch integer, first_seq bigint, last_seq bigint,
    activity_at timestamptz, receipts boolean, history_depth bigint, retention_seconds bigint, closed_at timestamptz,
    message_seq bigint, message_from text, message_at timestamptz, message_type text,
    message_body bytea, message_is_retracted boolean, message_is_expired boolean,
    unread bigint, mentions bigint, read_seq bigint, delivered_seq bigint, role text,
    muted_until timestamptz, mentions_break_mute boolean, silenced_until timestamptz,
    pinned_at timestamptz, is_archived boolean
)
language sql stable as $$
    -- `limit 1` makes a look-up of each sub-query, whatever the planner knows of the tables.
    select p.conversation_id, p.user_id, p.left_seq is not null,
           least(c.last_seq, p.left_seq) + p.own_version,
           c.kind, c.title, o.subject, c.epoch, s.low, least(c.last_seq, p.left_seq),
           c.updated_at, c.receipts, c.history_depth, c.retention_seconds, c.archived_at,
           m.seq, m.subject, m.created_at, m.type,
           m.body, m.retract_seq is not null, m.expires_at <= now() or m.content_format < 0,
           case when s.has_news then (
               select count(*) from (
                   select from messages u
                   where u.conversation_id = p.conversation_id and u.seq > s.after
                     and u.ordinal is not null and u.sender_id <> p.user_id
                     and u.retract_seq is null
                   order by u.seq limit 1000
               ) u
           ) else 0 end,
           case when s.has_news then (
               select count(*) from (
                   select from mentions n
                   cross join lateral (
                       select u.seq from messages u
                       where u.conversation_id = p.conversation_id and u.seq = n.seq
                         and u.sender_id <> p.user_id and u.retract_seq is null
                       limit 1
                   ) u
                   where n.conversation_id = p.conversation_id and n.user_id = p.user_id
                     and n.seq > s.after
                   order by n.seq limit 1000
               ) n
           ) else 0 end,
           p.read_seq, p.delivered_seq, p.role,
           p.muted_until, p.mentions_break_mute, p.silenced_until, p.pinned_at,
           coalesce(p.archived_seq >= c.last_message_seq
                    or (p.archived_seq is not null and p.muted_until > now()), false)
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
        select u.subject from participants o join users u on u.user_id = o.user_id
        where c.kind = 'direct' and o.conversation_id = p.conversation_id
          and o.user_id <> p.user_id
        order by o.user_id limit 1
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
        from messages m join users u on u.user_id = m.sender_id
        where p.left_seq is null and c.last_message_seq >= s.low
          and m.conversation_id = p.conversation_id and m.seq = c.last_message_seq
        limit 1
    ) m on true
    where p.user_id = owner and p.conversation_id = conversation
$$;

-- One page of a user's conversations, the newest activity first, after the place of a cursor.
--
-- `of_kind`, `archived` and `since` do not filter if they are null. Whoever was removed is
-- only told `since` a time. Unread is asked last and in the order of the page, so that it
-- costs no more than the page needs.
create function inbox_page(
    owner bigint, of_kind text, archived boolean, wants_unread boolean, wants_pinned boolean,
    since timestamptz, cursor_at timestamptz, cursor_id uuid, row_count bigint
)
returns table (user_id bigint, conversation_id uuid)
language sql stable as $$
    select owner, k.conversation_id
    from (
        select k.* from (
            select p.conversation_id, c.kind, c.updated_at, 0::bigint as after
            from participants p
            cross join lateral (
                select c.kind, c.updated_at from conversations c
                where c.conversation_id = p.conversation_id limit 1
            ) c
            where since is null and not wants_unread and not wants_pinned and not archived
              and p.user_id = owner and p.left_seq is null and p.archived_seq is null
            union all
            select p.conversation_id, c.kind, c.updated_at, 0
            from participants p
            cross join lateral (
                select c.kind, c.updated_at, c.last_message_seq from conversations c
                where c.conversation_id = p.conversation_id limit 1
            ) c
            where since is null and not wants_unread and not wants_pinned and not archived
              and p.user_id = owner and p.left_seq is null and p.archived_seq is not null
              and p.archived_seq < c.last_message_seq
              and (p.muted_until > now()) is not true
            union all
            select p.conversation_id, c.kind, c.updated_at,
                   greatest(p.read_seq, p.visible_from - 1, c.first_seq - 1)
            from participants p
            cross join lateral (
                select c.kind, c.updated_at, c.last_message_seq, c.first_seq from conversations c
                where c.conversation_id = p.conversation_id limit 1
            ) c
            where (since is not null or wants_unread or wants_pinned or coalesce(archived, true))
              and p.user_id = owner
              and (not wants_pinned or p.pinned_at is not null)
              and (archived is not true or p.archived_seq is not null)
              and (p.left_seq is null or since is not null)
              and (archived is null or archived = coalesce(
                      p.archived_seq >= c.last_message_seq
                      or (p.archived_seq is not null and p.muted_until > now()), false))
              and (since is null or p.changed_at > since or case
                      when p.left_seq is null then c.updated_at > since
                      else (select m.created_at > since from messages m
                            where m.conversation_id = p.conversation_id and m.seq = p.left_seq
                            limit 1) end)
              and (not wants_unread or (
                      p.left_seq is null and c.last_message_seq
                          > greatest(p.read_seq, p.visible_from - 1, c.first_seq - 1)))
        ) k
        where (of_kind is null or k.kind = of_kind)
          and (cursor_id is null or (k.updated_at, k.conversation_id) < (cursor_at, cursor_id))
        order by k.updated_at desc, k.conversation_id desc
        offset 0
    ) k
    -- Not `exists`, which would lose the order that makes it a search from `after` on.
    where not wants_unread or (
        select true from messages u
        where u.conversation_id = k.conversation_id and u.seq > k.after
          and u.ordinal is not null and u.sender_id <> owner and u.retract_seq is null
        order by u.seq limit 1
    )
    order by k.updated_at desc, k.conversation_id desc
    limit row_count
$$;

-- The first entry of low..=high that was stored at that time or later; high + 1 if none was.
-- Times rise with the sequences, which have no gaps: no index on the time is needed.
create function sequence_at(conversation uuid, low bigint, high bigint, at timestamptz)
returns bigint language plpgsql stable as $$
declare
    middle bigint;
    is_before boolean;
begin
    high := high + 1;
    while low < high loop
        middle := (low + high) / 2;
        select m.created_at < at into is_before from messages m
        where m.conversation_id = conversation and m.seq = middle;
        if is_before is not false then
            low := middle + 1;
        else
            high := middle;
        end if;
    end loop;
    return low;
end
$$;
