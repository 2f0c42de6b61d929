-- Receipts that can be switched off, and how far each device has read.

-- Who hides how far they have got: few, and looked up for each participant that is counted.
create index users_without_receipts on users (user_id) where not receipts;

-- As before; and a device that reads keeps how far, and a reading is a change of the user's own
-- row. has_read: the reading in the call is the furthest one.
drop function settle(bigint[], bigint[], uuid[], bigint[], bigint[]);
create function settle(
    device_ids bigint[], user_ids bigint[], conversation_ids uuid[], delivered_seqs bigint[], read_seqs bigint[]
) returns table (conversation_id uuid, user_id bigint, delivered_seq bigint, read_seq bigint, has_read boolean)
language plpgsql as $$
#variable_conflict use_column
declare
    is_read boolean := cardinality(array_remove(read_seqs, null)) > 0;
begin
    -- What has been delivered is told again after a crash; what has been read may not be.
    if not is_read then
        perform set_config('synchronous_commit', 'off', true);
    end if;

    -- Whoever was removed still acknowledges the entry that says so. A reading alone makes no
    -- cursor: the device may not have one, or no more.
    insert into device_cursors as d (conversation_id, device_id, delivered_seq, read_seq)
    select i.conversation_id, i.device_id,
           max(coalesce(least(i.delivered_seq, c.last_seq, p.left_seq), k.delivered_seq)),
           coalesce(max(case when i.read_seq is not null
                        then least(i.read_seq, c.last_seq, p.left_seq) end), 0)
    from (
        -- Only a reading: the cursor stays where it is.
        select i.*, i.delivered_seq is null as is_unmoved
        from unnest(device_ids, user_ids, conversation_ids, delivered_seqs, read_seqs)
            as i (device_id, user_id, conversation_id, delivered_seq, read_seq)
        where i.device_id is not null and (i.delivered_seq is not null or i.read_seq is not null)
    ) i
    join participants p on p.conversation_id = i.conversation_id and p.user_id = i.user_id
    join conversations c on c.conversation_id = i.conversation_id
    left join lateral (
        select k.delivered_seq from device_cursors k
        where i.is_unmoved and k.conversation_id = i.conversation_id and k.device_id = i.device_id
        limit 1
    ) k on true
    where not i.is_unmoved or k.delivered_seq is not null
    group by i.conversation_id, i.device_id
    order by i.conversation_id, i.device_id
    on conflict (conversation_id, device_id) do update
    set delivered_seq = greatest(d.delivered_seq, excluded.delivered_seq),
        read_seq = greatest(d.read_seq, excluded.read_seq)
    where d.delivered_seq < excluded.delivered_seq or d.read_seq < excluded.read_seq;

    -- In the order of the keys, so that two calls cannot wait for each other in a circle.
    perform 1
    from unnest(user_ids, conversation_ids, delivered_seqs, read_seqs)
        as i (user_id, conversation_id, delivered_seq, read_seq)
    join participants p on p.conversation_id = i.conversation_id and p.user_id = i.user_id
    where greatest(i.delivered_seq, i.read_seq) > p.delivered_seq or i.read_seq > p.read_seq
    order by p.conversation_id, p.user_id for no key update of p;

    return query
    with furthest as (
        -- Not null but 0 for what was not reported: least() and greatest() pass over nulls.
        select i.conversation_id, i.user_id, coalesce(max(i.read_seq), 0) as read_seq,
               coalesce(max(greatest(i.delivered_seq, i.read_seq)), 0) as delivered_seq
        from unnest(user_ids, conversation_ids, delivered_seqs, read_seqs)
            as i (user_id, conversation_id, delivered_seq, read_seq)
        where i.delivered_seq is not null or i.read_seq is not null
        group by i.conversation_id, i.user_id
    ), visible as (
        select f.conversation_id, f.user_id, least(f.delivered_seq, c.last_seq) as delivered_seq,
               least(f.read_seq, c.last_seq) as read_seq
        from furthest f join conversations c on c.conversation_id = f.conversation_id
    )
    update participants p
    set delivered_seq = greatest(p.delivered_seq, v.delivered_seq),
        read_seq = greatest(p.read_seq, v.read_seq),
        read_ordinal = case when v.read_seq > p.read_seq then greatest(p.read_ordinal, (
            select m.ordinal from messages m
            where m.conversation_id = v.conversation_id and m.seq <= v.read_seq and m.ordinal is not null
            order by m.seq desc limit 1
        )) else p.read_ordinal end,
        own_version = p.own_version + (v.read_seq > p.read_seq)::integer,
        changed_at = case when v.read_seq > p.read_seq then clock_timestamp() else p.changed_at end
    from visible v
    where p.conversation_id = v.conversation_id and p.user_id = v.user_id and p.left_seq is null
      and (v.delivered_seq > p.delivered_seq or v.read_seq > p.read_seq)
    returning p.conversation_id, p.user_id, p.delivered_seq, p.read_seq,
        v.read_seq > 0 and p.read_seq = v.read_seq;

    -- What has been read needs no notification any more, on any device.
    if is_read then
        perform arm_push_clear(conversation_ids, user_ids, now());
    end if;
end
$$;
