-- What others may know of when a user was last there.

alter table sessions
    -- When the device last went while no connection hid its user. It stays as it was when a hidden
    -- one goes, or when the server dies and nobody can say who was hidden. Others are told of
    -- this; disconnected_at is for the server and for the user alone.
    add column last_seen_at timestamptz;

alter table users
    -- When the user was invisible last: others are not told who went before. Null is never.
    add column visible_at timestamptz;

-- As before; it also keeps when those went whom no connection hid.
drop function close_sessions(bigint[], bigint[], boolean[], bigint[], jsonb[]);

create function close_sessions(
    devices bigint[], held_generations bigint[], keeps boolean[], expiries bigint[], unacknowledged jsonb[],
    hiddens boolean[]
) returns integer
language plpgsql as $$
declare
    closed bigint[];
    ended bigint[];
begin
    -- In the order of the ids, so that two of them cannot wait in a circle.
    perform 1 from sessions s where s.device_id = any (devices) order by s.device_id for no key update;

    with input as (
        select i.* from unnest(devices, held_generations, keeps, expiries, unacknowledged, hiddens)
            as i (device_id, generation, keep, expiry, inflight, is_hidden)
    ), updated as (
        update sessions s
        set generation = i.generation, node = null, disconnected_at = now(), is_present = i.keep,
            expiry_seconds = i.expiry, expires_at = now() + make_interval(secs => i.expiry),
            inflight = i.inflight,
            last_seen_at = case when i.is_hidden then s.last_seen_at else now() end
        from input i
        where s.device_id = i.device_id and s.generation <= i.generation
        returning s.device_id, i.keep
    )
    select array_agg(u.device_id), array_agg(u.device_id) filter (where not u.keep)
    into closed, ended from updated u;

    if ended is not null then
        perform end_sessions(ended);
    end if;
    return coalesce(array_length(closed, 1), 0);
end
$$;
