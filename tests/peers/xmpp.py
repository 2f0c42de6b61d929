"""Loads an XMPP server with one-to-one messages, and reads its archive (XEP-0313) as a new device
would. Prints one JSON object. Standard library only; plain TCP, SASL PLAIN, XEP-0198 with an ack
asked for after each message.

    xmpp.py PORT pairs SECONDS RATE PID...     100 pairs at RATE per second; 0: 16 pairs, window 16
    xmpp.py PORT crash AWAY BACK DATABASE      sends until the server dies, and counts what is archived
    xmpp.py PORT fresh                         bytes until 50 conversations, or 50 messages, are shown
"""

import asyncio
import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from xml.etree.ElementTree import XMLPullParser

HOST, PASSWORD = "localhost", "peers"
SM, MAM, RSM = "urn:xmpp:sm:3", "urn:xmpp:mam:2", "http://jabber.org/protocol/rsm"
STANZAS = {"{jabber:client}message", "{jabber:client}iq", "{jabber:client}presence"}
WINDOW, BODY = 16, "x" * 100
# Part of every message's id, so that runs do not meet in the archive.
RUN = os.urandom(4).hex()
SHOWN, LINE = 50, "Shall we meet at the station at nine, or a bit later?"
PATIENCE = 5.0


class Client(asyncio.Protocol):
    """One device: counts, acknowledges, and hands stanzas to `on_stanza`."""

    def __init__(self, user, port):
        self.user, self.port = user, port
        self.bytes = self.received = self.sent = self.acknowledged = 0
        self.is_managed, self.is_closed = False, False
        self.waiting, self.on_stanza, self.on_ack = None, None, None

    async def login(self):
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self.port)
        await self.open()
        secret = base64.b64encode(f"\0{self.user}\0{PASSWORD}".encode()).decode()
        await self.ask(f"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>", "success")
        await self.open()
        await self.ask("<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>", "iq")
        await self.ask(f"<enable xmlns='{SM}' resume='true'/>", "enabled")
        self.is_managed, self.received = True, 0
        self.write("<presence/>")
        self.sent += 1
        return self

    async def open(self):
        self.parser, self.depth = XMLPullParser(("start", "end")), 0
        await self.ask(
            "<?xml version='1.0'?><stream:stream xmlns='jabber:client' version='1.0' "
            f"xmlns:stream='http://etherx.jabber.org/streams' to='{HOST}'>",
            "features",
        )

    async def ask(self, text, name):
        """Sends, and waits for an element of that name (and, if it is an iq, its id)."""
        self.waiting = (name, asyncio.get_running_loop().create_future())
        answer = self.waiting[1]
        self.write(text)
        return await asyncio.wait_for(answer, 30)

    def write(self, text):
        data = text.encode()
        self.bytes += len(data)
        self.transport.write(data)

    def connection_made(self, transport):
        self.transport = transport

    def connection_lost(self, error):
        self.is_closed = True

    def data_received(self, data):
        self.bytes += len(data)
        parser = self.parser
        parser.feed(data)
        for event, element in parser.read_events():
            self.depth += 1 if event == "start" else -1
            if event == "start" and self.depth == 1:
                self.root = element
            elif event == "end" and self.depth == 1:
                self.handle(element)
                self.root.clear()

    def handle(self, element):
        tag = element.tag
        if tag in STANZAS:
            self.received += 1
        elif tag == f"{{{SM}}}r":
            self.write(f"<a xmlns='{SM}' h='{self.received}'/>")
        elif tag == f"{{{SM}}}a":
            self.acknowledged = int(element.get("h"))
            if self.on_ack:
                self.on_ack()
        if self.waiting and tag.endswith("}" + self.waiting[0]):
            answer, self.waiting = self.waiting[1], None
            answer.set_result(element)
        elif self.on_stanza and tag == "{jabber:client}message":
            self.on_stanza(element)

    def message(self, to, identifier, body):
        self.sent += 1
        self.write(
            f"<message to='{to}@{HOST}' type='chat' id='{identifier}'><body>{body}</body></message><r xmlns='{SM}'/>"
        )


class Pair:
    """A sender and its receiver, and what became of each message."""

    def __init__(self, number, port):
        self.sender, self.receiver = Client(f"s{number}", port), Client(f"r{number}", port)
        self.due, self.ack_seconds = [], []
        self.delivered, self.doubled, self.reordered, self.last = 0, 0, 0, -1
        self.is_sending, self.window, self.next = False, WINDOW, asyncio.Event()

    async def login(self):
        await self.receiver.login()
        await self.sender.login()
        self.base = self.sender.sent  # the presence is counted too
        self.receiver.on_stanza, self.sender.on_ack = self.on_message, self.on_ack

    @property
    def acknowledged(self):
        return max(self.sender.acknowledged - self.base, 0)

    def send(self, due):
        self.sender.message(self.receiver.user, f"{RUN}-{len(self.due)}", BODY)
        self.due.append(due)

    def fill(self):
        while self.is_sending and len(self.due) - self.acknowledged < self.window:
            self.send(time.monotonic())

    def on_ack(self):
        now = time.monotonic()
        self.ack_seconds += [now - due for due in self.due[len(self.ack_seconds) : self.acknowledged]]
        self.fill()

    def on_message(self, element):
        number = int(element.get("id").removeprefix(RUN + "-"))
        self.delivered += number > self.last
        self.doubled += number == self.last
        self.reordered += number < self.last
        self.last = max(number, self.last)


def cpu_seconds(pids):
    """Of these processes and all their descendants."""
    stats = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(") ", 1)[1].split()
            except OSError:
                continue
            stats[int(entry.name)] = (int(fields[1]), sum(map(int, fields[11:15])))
    family = set(pids)
    while more := {pid for pid, (parent, _) in stats.items() if parent in family} - family:
        family |= more
    return sum(stats[pid][1] for pid in family if pid in stats) / os.sysconf("SC_CLK_TCK")


def quantile(values, part):
    return sorted(values)[min(int(len(values) * part), len(values) - 1)] if values else 0.0


async def prepare(count, port):
    pairs = [Pair(number, port) for number in range(count)]
    for pair in pairs:
        await pair.login()
    return pairs


async def pairs(port, seconds, rate, pids):
    all_pairs = await prepare(100 if rate else 16, port)
    cpu, own, began = cpu_seconds(pids), time.process_time(), time.monotonic()
    if rate:
        for number in range(int(seconds * rate)):
            due = began + number / rate
            await asyncio.sleep(max(due - time.monotonic(), 0))
            all_pairs[number % len(all_pairs)].send(due)
    else:
        for pair in all_pairs:
            pair.is_sending = True
            pair.fill()
        await asyncio.sleep(seconds)
        for pair in all_pairs:
            pair.is_sending = False
    expected = sum(len(pair.due) for pair in all_pairs)
    delivered, changed = 0, time.monotonic()
    while time.monotonic() - changed < PATIENCE:
        now = sum(pair.delivered + pair.reordered for pair in all_pairs)
        if now > delivered:
            delivered, changed = now, time.monotonic()
        if delivered >= expected and all(pair.acknowledged >= len(pair.due) for pair in all_pairs):
            break
        await asyncio.sleep(0.01)
    span = changed - began
    acks = [ack for pair in all_pairs for ack in pair.ack_seconds]
    return {
        "messages": {
            "expected": expected,
            "delivered": delivered,
            "lost": expected - delivered,
            "doubled": sum(pair.doubled for pair in all_pairs),
            "reordered": sum(pair.reordered for pair in all_pairs),
            "delivered_per_second": delivered / span,
        },
        "ack_p50_ms": quantile(acks, 0.5) * 1e3,
        "ack_p99_ms": quantile(acks, 0.99) * 1e3,
        "server_micros_per_message": (cpu_seconds(pids) - cpu) / max(delivered, 1) * 1e6,
        "generator_cores": (time.process_time() - own) / span,
    }


async def crash(port, away, back, database):
    all_pairs = await prepare(16, port)
    for pair in all_pairs:
        pair.is_sending = True
        pair.fill()
    await asyncio.sleep(3)
    Path(away).touch()
    while not all(pair.sender.is_closed for pair in all_pairs):
        await asyncio.sleep(0.01)
    while not Path(back).exists():
        await asyncio.sleep(0.1)
    query = "select username, substring(xml from $$id='([0-9a-f]+-[0-9]+)'$$) from archive"
    rows = subprocess.run(["psql", "-XAtF", " ", "-d", database, "-c", query], check=True, capture_output=True, text=True)
    archived = set(rows.stdout.splitlines())

    promised = [(pair, number) for pair in all_pairs for number in range(pair.acknowledged)]
    return {
        "acknowledged": len(promised),
        "lost_for_sender": sum(f"{pair.sender.user} {RUN}-{number}" not in archived for pair, number in promised),
        "lost_for_receiver": sum(
            number > pair.last and f"{pair.receiver.user} {RUN}-{number}" not in archived for pair, number in promised
        ),
    }


def archive_query(identifier, contact, page, start=None):
    fields = {"FORM_TYPE": MAM, "with": f"{contact}@{HOST}"} | ({"start": start} if start else {})
    form = "".join(f"<field var='{name}'><value>{value}</value></field>" for name, value in fields.items())
    return (
        f"<iq type='set' id='{identifier}'><query xmlns='{MAM}'><x xmlns='jabber:x:data' type='submit'>{form}</x>"
        f"<set xmlns='{RSM}'>{page}</set></query></iq>"
    )


async def fresh(port):
    """50 conversations of two messages, one of them of 100; the user has read all before `read_at`."""
    contacts = [f"c{number}" for number in range(SHOWN)]
    read_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for contact in contacts:
        client = await Client(contact, port).login()
        for number in range(100 if contact == contacts[-1] else 2):
            client.message("alice", f"0198f3c2-0000-7000-8000-{number:012}", LINE)
        while client.acknowledged < client.sent:
            await asyncio.sleep(0.01)
        client.transport.close()
    # What waited for her goes to another device, not to the fresh one.
    older, waiting = Client("alice", port), []
    older.on_stanza = waiting.append
    await older.login()
    while len(waiting) < 2 * (SHOWN - 1) + 100:
        await asyncio.sleep(0.01)
    older.write(f"<a xmlns='{SM}' h='{older.received}'/></stream:stream>")
    while not older.is_closed:
        await asyncio.sleep(0.01)
    alice = Client("alice", port)
    await alice.login()
    cost = {"login_bytes": alice.bytes}
    results = []
    alice.on_stanza = results.append

    async def asked(name, requests, page, want, start=None):
        before, shown = alice.bytes, len(results)
        for number, contact in enumerate(requests):
            answer = await alice.ask(archive_query(f"{name}{number}", contact, page, start), "iq")
            assert answer.get("type") == "result", answer.attrib
        assert len(results) - shown == want, (name, len(results) - shown)
        cost[f"{name}_requests"], cost[f"{name}_bytes"] = len(requests), alice.bytes - before

    await asked("thread", contacts[-1:], f"<max>{SHOWN}</max><before/>", SHOWN)
    before = alice.bytes
    roster = await alice.ask("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>", "iq")
    assert len(roster[0]) == SHOWN, len(roster[0])
    cost["roster_bytes"] = alice.bytes - before
    await asked("last", contacts, "<max>1</max><before/>", SHOWN)
    await asked("unread", contacts, "<max>0</max>", 0, read_at)
    return cost


def main(port, scenario, *rest):
    if scenario == "pairs":
        rate, pids = (int(rest[1]), rest[2:])
        work = pairs(int(port), int(rest[0]), rate, [int(pid) for pid in pids])
    elif scenario == "crash":
        work = crash(int(port), *rest)
    else:
        work = fresh(int(port))
    print(json.dumps(asyncio.run(work)))


main(*sys.argv[1:])
