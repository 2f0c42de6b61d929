-- One rule for what counts as unread, for the inbox, the badge and the conversation alike.

-- Whether a message after the position of the reader, and visible to them, counts as unread at
-- that time: it is another's, neither retracted nor erased, and has not expired.
create function is_unread(
    ordinal bigint, sender_id bigint, retract_seq bigint, content_format smallint, expires_at timestamptz,
    reader bigint, at timestamptz
)
returns boolean language sql immutable as $$
    select ordinal is not null and sender_id <> reader and retract_seq is null and content_format >= 0
           and (expires_at <= at) is not true
$$;

-- As before, with that rule.
create or replace function inbox_row(owner bigint, conversation uuid)
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

-- As before, with that rule.
create or replace function inbox_page(
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
          and is_unread(u.ordinal, u.sender_id, u.retract_seq, u.content_format, u.expires_at,
                        owner, now())
        order by u.seq limit 1
    )
    order by k.updated_at desc, k.conversation_id desc
    limit row_count
$$;

-- As before, but for the badge, which follows that rule.
create or replace function claim_push(
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
                select c.last_ordinal, c.first_seq from conversations c
                where c.conversation_id = p.conversation_id limit 1
            ) c
            cross join lateral (
                select from messages m
                where m.conversation_id = p.conversation_id
                  and m.seq > greatest(p.read_seq, p.visible_from - 1, c.first_seq - 1)
                  and is_unread(m.ordinal, m.sender_id, m.retract_seq, m.content_format, m.expires_at,
                                p.user_id, moment)
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
