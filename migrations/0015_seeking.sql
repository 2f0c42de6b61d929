-- What changed since a time, and what is unread, is sought among few of a user's conversations.

-- The day of the user's own last change. As with `active_since`: an index on `changed_at` would be
-- written with every reading; this one is written once a day for a participant, and the readings
-- in between stay HOT.
--
-- The condition always holds. It keeps the index from every statement that does not ask for the
-- day: a look-up of one participant in it would read all conversations of a user.
alter table participants add changed_day timestamptz
    generated always as (date_bin('1 day', changed_at, '1970-01-01 00:00:00Z')) stored;
create index participants_changed on participants (user_id, changed_day) where changed_day is not null;

-- The hour in which contents were erased last; null for most.
alter table conversations add erased_hour timestamptz
    generated always as (date_bin('1 hour', erased_at, '1970-01-01 00:00:00Z')) stored;
create index conversations_erased on conversations (erased_hour) where erased_hour is not null;

drop function inbox_page(bigint, text, boolean, boolean, boolean, timestamptz, timestamptz, uuid, bigint);
drop function inbox_page_among_recent(bigint, text, boolean, timestamptz, uuid, bigint);
drop function inbox_page_among(
    bigint, uuid[], participants[], text, boolean, boolean, timestamptz, timestamptz, uuid, bigint);

-- As before; it also says when they were active, and looks for what is unread no further than
-- there are messages.
create function inbox_page_among(
    owner bigint, shown uuid[], taken_part participants[], of_kind text, archived boolean,
    wants_unread boolean, since timestamptz, cursor_at timestamptz, cursor_id uuid, row_count bigint
)
returns table (conversation_id uuid, updated_at timestamptz)
language sql stable as $$
    select k.conversation_id, k.updated_at
    from (
        select k.* from (
            select s.id as conversation_id, c.kind, c.updated_at, 0::bigint as after, 0::bigint as last
            from unnest(shown) s (id)
            cross join lateral (
                select c.kind, c.updated_at from conversations c where c.conversation_id = s.id limit 1
            ) c
            union all
            select p.conversation_id, c.kind, c.updated_at, s.after, c.last_message_seq
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
        where u.conversation_id = k.conversation_id and u.seq > k.after and u.seq <= k.last
          and is_unread(u.ordinal, u.sender_id, u.retract_seq, u.content_format, u.expires_at,
                        owner, now())
        order by u.seq limit 1
    )
    order by k.updated_at desc, k.conversation_id desc
    limit row_count
$$;

-- Of these, where a user takes part, or (`with_left`) took part, and which are not in `but`.
create function inbox_taken_part(owner bigint, conversations uuid[], with_left boolean, but participants[])
returns setof participants
language sql stable as $$
    select p.*
    from (
        select i.id from unnest(conversations) i (id)
        where i.id not in (select b.conversation_id from unnest(but) b)
    ) i
    cross join lateral (
        select p.* from participants p
        where p.conversation_id = i.id and p.user_id = owner and (with_left or p.left_seq is null)
        limit 1
    ) p
$$;

-- What a user changed since a time, and where contents were erased, but for what is in `but`. Null
-- if that is so much, more than 2,000, that a page is soon found without.
create function inbox_changed(owner bigint, since timestamptz, but participants[])
returns participants[]
language plpgsql stable as $$
declare
    changed participants[];
    erased uuid[];
    looked_at bigint;
begin
    changed := array(
        select p from participants p
        where p.user_id = owner and p.changed_at > since
          and p.changed_day >= date_bin('1 day', since, '1970-01-01 00:00:00Z')
        order by p.changed_day desc limit 2001);
    select array_agg(c.conversation_id) filter (where c.erased_at > since), count(*) into erased, looked_at
    from (
        select c.conversation_id, c.erased_at from conversations c
        where c.erased_hour >= date_bin('1 hour', since, '1970-01-01 00:00:00Z')
        limit 4001
    ) c;
    if cardinality(changed) > 2000 or looked_at > 4000 then
        return null;
    end if;
    changed := array(
        select p from unnest(changed) p
        where p.conversation_id not in (select b.conversation_id from unnest(but) b));
    return changed || array(select p from inbox_taken_part(owner, erased, false, but || changed) p);
end
$$;

-- A page sought among the conversations, of whomever, that were active last: up to 4,000 of them.
-- Null if that does not fill it.
--
-- What was not active since a time need not be sought there if it is known otherwise: what changed
-- `since` a time; or what was unread at `known_at` in `known`, the newest activity first, of which
-- there was nothing more behind the cursor if `known_is_all`: what had been read then and was not
-- active since has been read.
create function inbox_page_among_recent(
    owner bigint, of_kind text, archived boolean, wants_unread boolean, since timestamptz,
    known_at timestamptz, known uuid[], known_is_all boolean,
    cursor_at timestamptz, cursor_id uuid, row_count bigint
)
returns uuid[]
language plpgsql stable as $$
declare
    newest timestamptz := coalesce(date_bin('10 minutes', cursor_at, '1970-01-01 00:00:00Z'), 'infinity');
    oldest timestamptz;
    -- Sought is what was active from `low` on, and before `high`.
    low timestamptz := coalesce(since, known_at, '-infinity');
    high timestamptz := 'infinity';
    active uuid[];
    taken_part participants[] := '{}';
    others participants[];
    page uuid[];
    step integer;
begin
    foreach step in array array[500, 500, 1000, 2000] loop
        -- Whole intervals, since the index has no order within one; all if there are no more.
        oldest := coalesce((
            select c.active_since from conversations c
            where c.active_since <= newest
              and c.active_since >= date_bin('10 minutes', low, '1970-01-01 00:00:00Z')
            order by c.active_since desc offset step limit 1), '-infinity');
        active := array(
            select c.conversation_id from conversations c
            where c.active_since <= newest and c.active_since > oldest
              and c.active_since >= date_bin('10 minutes', low, '1970-01-01 00:00:00Z')
              and c.updated_at >= low and c.updated_at < high);
        taken_part := taken_part || array(
            select p from inbox_taken_part(owner, active, since is not null, null) p);
        newest := oldest;
        continue when cardinality(taken_part) < row_count and oldest > '-infinity';
        page := array(select a.conversation_id from inbox_page_among(
            owner, null, taken_part, of_kind, archived, wants_unread, since, cursor_at, cursor_id, row_count) a);
        if cardinality(page) = row_count or (oldest = '-infinity' and low = '-infinity') then
            return page;
        end if;
        continue when oldest > '-infinity';
        exit when since is null;
        others := inbox_changed(owner, since, taken_part);
        if others is not null then
            return array(select a.conversation_id from inbox_page_among(
                owner, null, taken_part || others, of_kind, archived, wants_unread, since,
                cursor_at, cursor_id, row_count) a);
        end if;
        -- So much has changed that a page is soon found among all.
        newest := least(date_bin('10 minutes', since, '1970-01-01 00:00:00Z'), date_bin('10 minutes', cursor_at, '1970-01-01 00:00:00Z'));
        high := since;
        low := '-infinity';
    end loop;
    if since is not null or oldest > '-infinity' then
        return null;
    end if;
    step := 100;
    while cardinality(known) > 0 loop
        taken_part := taken_part || array(
            select p from inbox_taken_part(owner, known[:step], false, taken_part) p);
        known := known[step + 1:];
        page := array(select a.conversation_id from inbox_page_among(
            owner, null, taken_part, of_kind, archived, wants_unread, since, cursor_at, cursor_id, row_count) a);
        if cardinality(page) = row_count then
            return page;
        end if;
        step := 2 * step;
    end loop;
    return case when known_is_all then page end;
end
$$;

-- As before; and of who has very many conversations, what is unread or has changed `since` a time is
-- sought as above, too. Something is known of nobody else.
create function inbox_page(
    owner bigint, of_kind text, archived boolean, wants_unread boolean, wants_pinned boolean,
    since timestamptz, known_at timestamptz, known uuid[], known_is_all boolean,
    cursor_at timestamptz, cursor_id uuid, row_count bigint
)
returns table (user_id bigint, conversation_id uuid)
language plpgsql stable as $$
#variable_conflict use_column
declare
    shown uuid[];
    taken_part participants[];
    page uuid[];
    at_most bigint := case when known_at is null then 301 else 0 end;
begin
    if row_count = 0 then
        return;
    elsif wants_pinned then
        taken_part := array(
            select p from participants p
            where p.user_id = owner and p.pinned_at is not null and (since is not null or p.left_seq is null));
    elsif since is null and archived then
        taken_part := array(
            select p from participants p
            where p.user_id = owner and p.left_seq is null and p.archived_seq is not null);
    elsif since is null and archived is null then
        taken_part := array(
            select p from participants p where p.user_id = owner and p.left_seq is null);
    else
        loop
            if wants_unread or since is not null then
                taken_part := array(
                    select p from participants p
                    where p.user_id = owner and (since is not null or p.left_seq is null) limit at_most);
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
            -- The index alone tells who has very many.
            if known_at is not null or 2000 < (
                select count(*) from (select from participants p where p.user_id = owner limit 2001) p
            ) then
                page := inbox_page_among_recent(
                    owner, of_kind, archived, wants_unread, since, known_at, known, known_is_all,
                    cursor_at, cursor_id, row_count);
                if page is not null then
                    return query select owner, p.id from unnest(page) p (id);
                    return;
                end if;
            end if;
            at_most := null;
        end loop;
    end if;
    return query select owner, a.conversation_id from inbox_page_among(
        owner, shown, taken_part, of_kind, archived, wants_unread, since,
        cursor_at, cursor_id, row_count) a;
end
$$;

-- All that is unread of a user's conversations, the newest activity first: `row_count` of them.
--
-- Only in `known` and in what was active since `known_at` if nothing else was unread then, and no
-- more than 4,000 conversations of whomever were active since.
create function inbox_unread(owner bigint, known_at timestamptz, known uuid[], row_count bigint)
returns table (conversation_id uuid, updated_at timestamptz)
language plpgsql stable as $$
#variable_conflict use_column
declare
    active uuid[];
    taken_part participants[];
begin
    if known is not null then
        active := array(
            select c.conversation_id from conversations c
            where c.active_since >= date_bin('10 minutes', known_at, '1970-01-01 00:00:00Z')
              and c.updated_at >= known_at
            limit 4001);
    end if;
    if cardinality(active) <= 4000 then
        taken_part := array(select p from inbox_taken_part(owner, active, false, null) p);
        taken_part := taken_part || array(select p from inbox_taken_part(owner, known, false, taken_part) p);
    else
        taken_part := array(select p from participants p where p.user_id = owner and p.left_seq is null);
    end if;
    return query select a.conversation_id, a.updated_at from inbox_page_among(
        owner, null, taken_part, null, null, true, null, null, null, row_count) a;
end
$$;

-- Entries after the newest message are nobody's unread: a hundred thousand edits are not walked.
do $$
declare
    bounded text := replace(
        pg_get_functiondef('inbox_row(bigint, uuid)'::regprocedure),
        'and u.seq > s.after', 'and u.seq > s.after and u.seq <= c.last_message_seq');
begin
    assert position('u.seq <= c.last_message_seq' in bounded) > 0;
    execute bounded;
end
$$;
