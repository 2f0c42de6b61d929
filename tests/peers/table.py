"""Prints what homing-load reported of each server as one table: table.py FOLDER SERVER..."""

import json
import sys
from pathlib import Path

NAMES = {
    "homing": "Homing, committed to Postgres",
    "mosquitto_memory": "mosquitto, in memory",
    "mosquitto_persistent": "mosquitto, saved every 30 min (default)",
    "mosquitto_saving": "mosquitto, saved on each change",
    "rabbitmq_classic": "RabbitMQ, durable classic queues (default)",
    "rabbitmq_quorum": "RabbitMQ, quorum queues",
    "ejabberd_mqtt": "ejabberd mod_mqtt",
}
ARCHIVE = "ejabberd_mam"


class Reports:
    """Of one server, by scenario; an error where there is no report."""

    def __init__(self, folder):
        self.reports, self.errors = {}, {}
        for error in folder.glob("*.error"):
            report = error.with_suffix(".json")
            if report.stat().st_size:
                self.reports[error.stem] = json.loads(report.read_text())
            else:
                said = error.read_text().strip() or "gave up"
                self.errors[error.stem] = said.splitlines()[-1].removeprefix("homing-load: ")

    def cell(self, scenario, show):
        if scenario in self.reports:
            return show(self.reports[scenario])
        return "no: " + self.errors.get(scenario, "was not run")


def latency(report, of):
    return next(one for one in report["latencies"] if one["of"] == of)


def milliseconds(report, of):
    found = latency(report, of)
    return f"{found['p50_micros'] / 1e3:.2f} / {found['p99_micros'] / 1e3:.1f} ms"


def rate_of(report):
    return f"{report['messages']['delivered_per_second']:,.0f}"


def cpu_of(report):
    return f"{report['cpu']['server_micros_per_delivery']:.0f} µs"


def lost_of(report):
    messages = report["messages"]
    return f"{messages['lost']:,} of {messages['expected']:,}"


def drained(report):
    return f"{latency(report, 'drained')['max_micros'] / 1e6:.2f} s"


def came_back(report):
    return "; ".join([f"{report['seconds']:.2f} s", *report["violations"]])


def resident(report):
    text = f"{report['memory']['rss_bytes_per_connection'] / 1e3:.1f} kB at {report['connections']:,}"
    return "; ".join([text, *report["violations"]])


ROWS = [
    ("1:1 messages per second, 16 pairs, window 16", "pairs", rate_of),
    ("CPU of the server per message", "pairs", cpu_of),
    ("from sending to delivery meanwhile, p50 / p99", "pairs", lambda one: milliseconds(one, "delivery")),
    ("PUBACK at 500 messages/s over 100 pairs, p50 / p99", "paced", lambda one: milliseconds(one, "PUBACK")),
    ("fan-out 1 to 100, delivered per second", "fanout", lambda one: f"{rate_of(one)} at {cpu_of(one)}"),
    ("500 devices come back to 20 messages each, all drained", "offline", drained),
    ("2,000 sessions come back at once, last CONNACK", "storm", came_back),
    ("idle connection, one subscription, resident", "idle", resident),
    ("lost of 10,000 acknowledged when `kill -9` came before the devices", "crash", lost_of),
]
FAULTS = ["lost", "doubled", "reordered", "pubacks_out_of_order"]


def faults(server):
    """Of all that was sent while the server lived."""
    counted = [server.reports[name]["messages"] for name in ("pairs", "paced", "fanout", "offline") if name in server.reports]
    sums = [sum(messages[fault] for messages in counted) for fault in FAULTS]
    return " / ".join(f"{count:,}" for count in sums) + f" of {sum(one['expected'] for one in counted):,}"


def print_table(heads, rows):
    for row in (heads, ["---"] * len(heads), *rows):
        print("|", " | ".join(row), "|")


def brokers(folder, names):
    servers = [Reports(Path(folder, name)) for name in names]
    rows = [(what, *(server.cell(scenario, show) for server in servers)) for what, scenario, show in ROWS]
    rows.append(("lost / doubled / reordered / PUBACKs out of order, in all of the above but the last", *map(faults, servers)))
    print_table(["what", *(NAMES[name] for name in names)], rows)


# What both have, and how the report of each says it: Homing's of homing-load, ejabberd's of xmpp.py.
BOTH_ROWS = [
    ("1:1 messages per second, 16 pairs, window 16", "pairs", rate_of, rate_of),
    (
        "CPU of server and Postgres per message",
        "pairs",
        cpu_of,
        lambda one: f"{one['server_micros_per_message']:,.0f} µs",
    ),
    (
        "CPU of the load generator meanwhile",
        "pairs",
        lambda one: f"{one['cpu']['generator_cores']:.2f} cores",
        lambda one: f"{one['generator_cores']:.2f} cores",
    ),
    (
        "PUBACK, XEP-0198 ack at 500 messages/s over 100 pairs, p50 / p99",
        "paced",
        lambda one: milliseconds(one, "PUBACK"),
        lambda one: f"{one['ack_p50_ms']:.2f} / {one['ack_p99_ms']:.1f} ms",
    ),
    (
        "`kill -9` of server and Postgres: lost of what was acknowledged",
        "crash",
        lambda one: f"{lost_of(one)}, devices away",
        lambda one: f"{one['lost_for_receiver']:,} of {one['acknowledged']:,}, under load: neither received nor in the "
        f"receiver's archive ({one['lost_for_sender']:,} not in the sender's)",
    ),
]


def fresh(one):
    steps = [("50 messages of one", "thread"), ("the last message of each", "last"), ("how many are unread, if it knew since when", "unread")]
    told = [f"login {one['login_bytes'] / 1e3:.1f} kB", f"contacts {one['roster_bytes'] / 1e3:.1f} kB"]
    told += [f"{what}: {one[name + '_bytes'] / 1e3:.1f} kB, {one[name + '_requests']} requests" for what, name in steps]
    total = sum(value for name, value in one.items() if name.endswith("_bytes"))
    return "; ".join(told) + f"; together {total / 1e3:.0f} kB"


def conversations(folder):
    homing, ejabberd = Reports(Path(folder, "homing")), Reports(Path(folder, ARCHIVE))
    rows = [(what, homing.cell(name, ours), ejabberd.cell(name, theirs)) for what, name, ours, theirs in BOTH_ROWS]
    fresh_of_homing = "a list of 50 and 50 messages: 4 requests, at most 41 kB in JSON and 18.5 kB in CBOR (tests/suite/fresh.rs)"
    rows.append(("a fresh device, 50 conversations, bytes both ways", fresh_of_homing, ejabberd.cell("fresh", fresh)))
    print_table(["what", NAMES["homing"], "ejabberd mod_mam, XMPP, archived in Postgres"], rows)


def main(folder, names):
    if names != [ARCHIVE]:
        brokers(folder, [name for name in names if name != ARCHIVE])
        print()
    if ARCHIVE in names:
        conversations(folder)


main(sys.argv[1], sys.argv[2:])
