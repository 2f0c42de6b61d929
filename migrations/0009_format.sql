-- What the payloads of a device are written in is read where its session is opened.

-- As before; it also answers the format of the device, and nothing to a token that was issued (in
-- seconds since 1970; null is unknown) before the device was signed out.
drop function open_session(bigint, text, boolean, bigint, text);

create function open_session(
    owner_id bigint, client text, clean_start boolean, expiry bigint, node_name text, issued_at bigint
)
returns table (device_id bigint, generation bigint, is_present boolean, subscriptions jsonb, inflight jsonb,
               format text)
language plpgsql as $$
#variable_conflict use_column
declare
    device bigint;
    wanted text;
    signed_out timestamptz;
    earlier sessions%rowtype;
    resumes boolean;
begin
    select d.device_id, d.format, d.signed_out_at into device, wanted, signed_out
    from devices d where d.user_id = owner_id and d.client_id = client;
    if signed_out is not null and coalesce(to_timestamp(issued_at) < signed_out, true) then
        return;
    end if;
    if device is null then
        insert into devices (user_id, client_id) values (owner_id, client)
        on conflict (user_id, client_id) do nothing;
        -- Another connection may have been first: look again, with a younger snapshot.
        select d.device_id, d.format into device, wanted from devices d where d.user_id = owner_id and d.client_id = client;
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
    returning s.device_id, s.generation, resumes, s.subscriptions, s.inflight, wanted;
end
$$;
