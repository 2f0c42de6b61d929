-- Pages of large inboxes: most are found among what was active of late.

-- The ten minutes in which a conversation was active last. An index on `updated_at` itself would
-- be written with every entry; this one is written once in ten minutes for a conversation, and
-- the updates in between stay HOT.
alter table conversations add active_since timestamptz not null
    generated always as (date_bin('10 minutes', updated_at, '1970-01-01 00:00:00Z')) stored;
create index conversations_active on conversations (active_since);

create index participants_pinned on participants (user_id, conversation_id) where pinned_at is not null;

drop function inbox_page(bigint, text, boolean, boolean, boolean, timestamptz, timestamptz, uuid, bigint);

-- One page of these conversations of a user, the newest activity first, after the place of a
-- cursor: of those `shown` for sure, and of those `taken_part` in for which it must be seen.
--
-- `of_kind`, `archived` and `since` do not filter if they are null. Unread is asked last and in
-- the order of the page, so that it costs no more than the page needs.
create function inbox_page_among(
    owner bigint, shown uuid[], taken_part participants[], of_kind text, archived boolean,
    wants_unread boolean, since timestamptz, cursor_at timestamptz, cursor_id uuid, row_count bigint
)
returns table (conversation_id uuid)
language sql stable as $$
    select k.conversation_id
    from (
        select k.* from (
            select s.id as conversation_id, c.kind, c.updated_at, 0::bigint as after
            from unnest(shown) s (id)
            cross join lateral (
                select c.kind, c.updated_at from conversations c where c.conversation_id = s.id limit 1
            ) c
            union all
            select p.conversation_id, c.kind, c.updated_at, s.after
            from unnest(taken_part) p
            cross join lateral (
                select c.kind, c.updated_at, c.erased_at, c.last_message_seq, c.first_seq
                from conversations c where c.conversation_id = p.conversation_id limit 1
            ) c
            cross join lateral (
                select greatest(p.read_seq, p.visible_from - 1, c.first_seq - 1) as after
            ) s
            where (archived is null or archived = is_archived(
                      p.archived_seq, c.last_message_seq, p.muted_until, now()))
              and (since is null or p.changed_at > since or case
                      when p.left_seq is null then greatest(c.updated_at, c.erased_at) > since
                      else (select m.created_at > since from messages m
                            where m.conversation_id = p.conversation_id and m.seq = p.left_seq
                            limit 1) end)
              and (not wants_unread or (p.left_seq is null and c.last_message_seq > s.after))
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
          and is_unread(u.ordinal, u.sender_id, u.retract_seq, u.content_format, u.expires_at,
                        owner, now())
        order by u.seq limit 1
    )
    order by k.updated_at desc, k.conversation_id desc
    limit row_count
$$;

-- A page of what a user's inbox shows, or of what is unread there, sought among the conversations,
-- of whomever, that were active last: up to 4,000 of them. Null if that does not fill it.
create function inbox_page_among_recent(
    owner bigint, of_kind text, wants_unread boolean,
    cursor_at timestamptz, cursor_id uuid, row_count bigint
)
returns uuid[]
language plpgsql stable as $$
declare
    newest timestamptz := coalesce(date_bin('10 minutes', cursor_at, '1970-01-01 00:00:00Z'), 'infinity');
    oldest timestamptz;
    taken_part participants[];
    page uuid[];
    step integer;
begin
    foreach step in array array[500, 500, 1000, 2000] loop
        -- Whole intervals, since the index has no order within one; all if there are no more.
        oldest := coalesce((
            select c.active_since from conversations c where c.active_since <= newest
            order by c.active_since desc offset step limit 1), '-infinity');
        taken_part := taken_part || array(
            select p.row
            from (
                select c.conversation_id from conversations c
                where c.active_since <= newest and c.active_since > oldest
            ) c
            cross join lateral (
                select p as row from participants p
                where p.conversation_id = c.conversation_id and p.user_id = owner and p.left_seq is null
                limit 1
            ) p);
        newest := oldest;
        continue when cardinality(taken_part) < row_count and oldest > '-infinity';
        page := array(select inbox_page_among(
            owner, null, taken_part, of_kind, false, wants_unread, null, cursor_at, cursor_id, row_count));
        if cardinality(page) = row_count or oldest = '-infinity' then
            return page;
        end if;
    end loop;
    return null;
end
$$;

-- One page of a user's conversations, sought where few have to be looked at.
--
-- What is pinned or archived has an index, and for most of what is neither the index says enough.
-- Whoever has very many conversations takes part in a good share of all there are: their page is
-- sought first among what was active last. Whoever was removed is only told `since` a time.
create function inbox_page(
    owner bigint, of_kind text, archived boolean, wants_unread boolean, wants_pinned boolean,
    since timestamptz, cursor_at timestamptz, cursor_id uuid, row_count bigint
)
returns table (user_id bigint, conversation_id uuid)
language plpgsql stable as $$
#variable_conflict use_column
declare
    shown uuid[];
    taken_part participants[];
    page uuid[];
    at_most bigint := 2001;
begin
    if row_count = 0 then
        return;
    elsif since is not null then
        taken_part := array(
            select p from participants p
            where p.user_id = owner and (not wants_pinned or p.pinned_at is not null));
    elsif wants_pinned then
        taken_part := array(
            select p from participants p
            where p.user_id = owner and p.left_seq is null and p.pinned_at is not null);
    elsif archived then
        taken_part := array(
            select p from participants p
            where p.user_id = owner and p.left_seq is null and p.archived_seq is not null);
    elsif archived is null then
        taken_part := array(
            select p from participants p where p.user_id = owner and p.left_seq is null);
    else
        loop
            if wants_unread then
                taken_part := array(
                    select p from participants p
                    where p.user_id = owner and p.left_seq is null limit at_most);
            else
                shown := array(
                    select p.conversation_id from participants p
                    where p.user_id = owner and p.left_seq is null and p.archived_seq is null
                    limit at_most);
                taken_part := array(
                    select p from participants p
                    where p.user_id = owner and p.left_seq is null and p.archived_seq is not null
                    limit at_most);
            end if;
            exit when at_most is null
                or coalesce(cardinality(shown), 0) + cardinality(taken_part) < at_most;
            page := inbox_page_among_recent(
                owner, of_kind, wants_unread, cursor_at, cursor_id, row_count);
            if page is not null then
                return query select owner, p.id from unnest(page) p (id);
                return;
            end if;
            at_most := null;
        end loop;
    end if;
    return query select owner, a.conversation_id from inbox_page_among(
        owner, shown, taken_part, of_kind, archived, wants_unread, since,
        cursor_at, cursor_id, row_count) a;
end
$$;
