-- Who has no device, and follows streams of events, is there while one is open.

alter table users
    -- When the last stream of the user closed while no connection hid them, as
    -- sessions.last_seen_at is of devices. Null is never.
    add column streamed_at timestamptz;
