-- The users of tests/peers/xmpp.py, and alice's fifty contacts, in ejabberd's tables.
insert into users (username, password)
select name, :'password'
from (
    select 'alice' as name
    union all select 'c' || number from generate_series(0, 49) as number
    union all select side || number from generate_series(0, 99) as number, unnest(array['s', 'r']) as side
) as names;

insert into rosterusers (username, jid, nick, subscription, ask, askmessage, server, subscribe, type)
select 'alice', 'c' || number || '@localhost', 'Trip to Rome', 'B', 'N', '', 'N', '', 'item'
from generate_series(0, 49) as number;
