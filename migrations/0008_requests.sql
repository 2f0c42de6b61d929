-- Requests that come again.

alter table idempotency_keys
    -- When the work on it began last. After a minute without an answer it is begun again.
    add column begun_at timestamptz not null default now();
