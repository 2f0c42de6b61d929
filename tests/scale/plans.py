"""Prints, as psql input, EXPLAIN of the statements that people wait for, as src/store has them."""

import glob
import re

UNREAD_KNOWN_MAX = 2000
QUERIES = [query for path in glob.glob("src/store/*.rs") for query in re.findall('r#"(.*?)"#', open(path).read(), re.S)]
SETTINGS = """
select set_config(s.name, s.value, false) from (values
    ('plan_cache_mode', 'force_generic_plan'), ('jit', 'off'), ('enable_seqscan', 'off'),
    ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('enable_memoize', 'off')) as s (name, value) \\g /dev/null
select conversation_id as long from conversations order by last_seq desc limit 1 \\gset
select max(device_id) as phone from devices \\gset
select array_agg(conversation_id) as held from (
    select conversation_id from participants where user_id = 1 order by md5(conversation_id::text) limit 500) p \\gset
select (extract(epoch from c.updated_at) * 1000000)::bigint as deep_at, c.conversation_id as deep_id
from participants p join conversations c on c.conversation_id = p.conversation_id
where p.user_id = 1 order by c.updated_at desc offset (select count(*) * 7 / 10 from participants where user_id = 1) limit 1 \\gset
select (extract(epoch from min(created_at)) * 1000)::bigint + 1000000 as long_at from messages
where conversation_id = :'long' \\gset
"""
# What the first page of what is unread remembers for the ones after it.
KNOWN = """
select array_agg(k.conversation_id) as known, (extract(epoch from now()) * 1000)::bigint - 60000 as known_at
from inbox_unread(1, null, null, %d) k \\gset
""" % UNREAD_KNOWN_MAX
NOW = "(extract(epoch from now()) * 1000)::bigint"
NO_PAIRS = "'{}', '{}'"
PAIRS = "null, null, null, false, false, null, null, null, null, null, null, 0, array_fill(1::bigint, array[500]), :'held'::uuid[]"
STATEMENTS = [
    ("inbox: first page", "from inbox_page(", f"1, null, false, false, false, null, null, null, null, null, null, 51, {NO_PAIRS}"),
    ("inbox: page after seven tenths", "from inbox_page(", f"1, null, false, false, false, null, null, null, null, :deep_at, :'deep_id', 51, {NO_PAIRS}"),
    ("inbox: unread, what the first page looks at before", "from inbox_unread(", f"1, null, null, {UNREAD_KNOWN_MAX + 1}"),
    ("inbox: unread, a page at once", "from inbox_page(", f"1, null, false, true, false, null, :known_at, :'known', true, null, null, 51, {NO_PAIRS}"),
    ("inbox: unread, a page after half a day", "from inbox_page(", f"1, null, false, true, false, null, :known_at::bigint - 43200000, :'known', true, null, null, 51, {NO_PAIRS}"),
    ("inbox: unread, looked at again after half a day", "from inbox_unread(", f"1, :known_at::bigint - 43200000, :'known', {UNREAD_KNOWN_MAX + 1}"),
    ("inbox: pinned", "from inbox_page(", f"1, null, false, false, true, null, null, null, null, null, null, 51, {NO_PAIRS}"),
    ("inbox: changed in the last day", "from inbox_page(", f"1, null, null, false, false, {NOW} - 86400000, null, null, null, null, null, 51, {NO_PAIRS}"),
    ("inbox: changed in the last hour", "from inbox_page(", f"1, null, null, false, false, {NOW} - 3600000, null, null, null, null, null, 51, {NO_PAIRS}"),
    ("thread: newest", 'as "changed_by!"', ":'long', 1, 248001, 250000, 2, 1, 9223372036854775807, 51"),
    ("thread: around 100,000", 'as "changed_by!"', ":'long', 1, 98001, 99999, 2, 1, 9223372036854775807, 26"),
    ("thread: a time", "select sequence_at", ":'long', 1, 250000, :long_at"),
    ("thread: changed since 240,000", 'as "changed_by!"', ":'long', 1, 240001, 242000, 3, 1, 9223372036854775807, 51"),
    ("resume: what waits for a device", 's.head as "head!"', ":phone, 1, null"),
    ("reconcile: 500 held", "c.epoch, c.first_seq, c.last_seq, p.visible_from", "1, :'held'::uuid[]"),
    ("reconcile: 500 rows, if all differ", "from inbox_page(", PAIRS),
]

print(SETTINGS + KNOWN)
for number, (title, marker, arguments) in enumerate(STATEMENTS):
    (query,) = [query for query in QUERIES if marker in query]
    print(f"prepare s{number} as {query};")
    # Once to warm the caches.
    print(f"execute s{number}({arguments}) \\g /dev/null")
    print(f"\\echo '== {title}'")
    print(f"explain (analyze, buffers) execute s{number}({arguments});")
