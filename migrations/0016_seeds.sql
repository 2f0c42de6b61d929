-- What requests that come again take their ids from.

alter table idempotency_keys
    -- The same whenever the request is begun again, and unknown to everybody: who has the id of
    -- an attachment was given it.
    add column seed uuid not null default gen_random_uuid();
