-- Fills an empty, migrated database: :messages messages in :conversations conversations, of
-- which user 1 takes part in :mine. Times lie in the last 100 days; the messages of different
-- conversations lie between each other, as they do in life.

set synchronous_commit = off;
select setseed(0.5);

insert into users (subject) select 'user-' || n from generate_series(1, 20000) n;

create temporary table seeds as
select n, gen_random_uuid() as id, n % 10 < 7 as is_direct,
       -- The first one is long, the others are alike.
       case n when 1 then :messages / 20 else :messages / :conversations * 19 / 20 end::bigint as length,
       now() - random() * interval '100 days' as last_at
from generate_series(1, :conversations) n;

insert into conversations (conversation_id, kind, title, last_seq, last_ordinal, last_message_seq,
                           created_at, updated_at)
select id, case when is_direct then 'direct' else 'group' end,
       case when not is_direct then 'Group ' || n end, length, length, length,
       last_at - interval '50 days', last_at
from seeds order by random();

-- User 1 in the first ones and then two to six others, most of whom have read all, within an hour.
insert into participants (conversation_id, user_id, role, joined_seq, read_seq, read_ordinal,
                          delivered_seq, archived_seq, pinned_at, changed_at)
select s.id, p.user_id, 'member', 1, p.read_seq, p.read_seq, s.length,
       case when p.place = 0 and s.n % 20 = 0 then p.read_seq end,
       case when p.place = 0 and s.n % 1000 = 0 then now() end,
       least(now(), s.last_at + random() * interval '1 hour')
from seeds s
cross join lateral (
    select place, case when place = 0 and s.n <= :mine then 1 else 2 + (s.n * 7 + place * 1009) % 19999 end as user_id,
           case when random() < 0.8 then s.length else greatest(s.length - (random() * 30)::bigint, 0) end as read_seq
    from generate_series(0, case when s.is_direct then 1 else 5 end) place
) p
order by random();

insert into messages (conversation_id, seq, ordinal, sender_id, client_message_id, type, body, created_at)
select s.id, s.seq, s.seq, 2 + (s.n * 7 + 1009) % 19999, 'm-' || s.seq, 'text',
       convert_to('"Message ' || s.seq || ' of conversation ' || s.n || '"', 'UTF8'),
       s.last_at - (s.length - s.seq) * interval '1 hour' * 0.01
from (
    select seq, s.* from seeds s, generate_series(1, length) seq where n = 1
    union all
    select seq, s.* from generate_series(1, (select max(length) from seeds where n > 1)) seq, seeds s
    where n > 1
) s;

-- One in a hundred was edited by the entry after it, one in fifty has a reaction.
update messages m set version = m.seq + 1, edit_seq = m.seq + 1
where m.seq % 100 = 7 and exists (
    select from messages e where e.conversation_id = m.conversation_id and e.seq = m.seq + 1);
update messages m set ordinal = null, type = 'edit', ref_seq = m.seq - 1 where m.seq % 100 = 8;
insert into reactions (conversation_id, seq, key, user_id, at_seq)
select conversation_id, seq, '👍', 1, seq from messages where seq % 50 = 3;

-- A device of user 1, which has received all but the last day.
insert into devices (user_id, client_id) values (1, 'phone');
insert into sessions (device_id) select max(device_id) from devices;
insert into device_cursors (conversation_id, device_id, delivered_seq)
select p.conversation_id, (select max(device_id) from devices),
       case when c.updated_at > now() - interval '1 day' then c.last_seq - 3 else c.last_seq end
from participants p join conversations c on c.conversation_id = p.conversation_id
where p.user_id = 1;

vacuum analyze;
