-- Who has no device, and follows streams of events, is there while one is open.

alter table users
    -- When the last stream of the user closed while no connection hid them, as
    -- sessions.last_seen_at is of devices. Null is never.
    add column streamed_at timestamptz;

-- Whether an entry of the log says that the conversation changed hands.
create function is_handover(ordinal bigint, type text, body bytea) returns boolean
language sql immutable as $$
    select ordinal is null and type = 'homing.membership'
       and substring(body from 1 for 23) = '{"change":"transferred"'::bytea
$$;

-- Who comes by a hand-over is woken for the entry that says so; nobody else is, and of what the
-- server writes nobody is for anything else. arm_push() takes such an entry under the number of
-- its author below zero. One condition of it is new, all the rest stays as it was.
do $$
declare
    before constant text := 'where p.user_id <> i.sender_id and p.left_seq is null';
    after constant text := 'where p.user_id <> abs(i.sender_id) and p.left_seq is null
          and (i.sender_id > 0 or p.joined_seq = i.first_seq)';
    definition constant text := pg_get_functiondef('arm_push'::regproc);
begin
    if position(before in definition) = 0 then
        raise exception 'arm_push() is another one';
    end if;
    execute replace(definition, before, after);
end
$$;
