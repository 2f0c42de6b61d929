"""A CBOR session of paho-mqtt, with cbor2. One argument: its setting, as JSON."""

import json
import queue
import sys
import uuid

import cbor2
import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE = 20  # seconds; only a failure waits so long
MESSAGE_ID = uuid.UUID("0198f3c2-0000-7000-8000-000000000001").bytes

setting = json.loads(sys.argv[1])
connects, subscribes = queue.Queue(), queue.Queue()
publishes, messages = queue.Queue(), queue.Queue()
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "paho", protocol=mqtt.MQTTv5)
client.username_pw_set("alice", setting["alice"])
client.on_connect = lambda c, u, flags, code, p: connects.put((code, p))
client.on_subscribe = lambda c, u, mid, codes, p: subscribes.put(codes)
client.on_publish = lambda c, u, mid, code, p: publishes.put(code)
client.on_message = lambda c, u, message: messages.put(message)
properties = Properties(PacketTypes.CONNECT)
properties.UserProperty = ("format", "cbor")
client.connect("127.0.0.1", setting["mqtt"], clean_start=True, properties=properties)
client.loop_start()
code, properties = connects.get(timeout=PATIENCE)
assert code.value == 0, code
assert ("format", "cbor") in properties.UserProperty, properties
client.subscribe([("c/#", 1), ("me/#", 1)])
subscribes.get(timeout=PATIENCE)


def publish(topic, payload):
    client.publish(topic, payload, 1)
    return publishes.get(timeout=PATIENCE).value


def read(leaf):
    while True:
        message = messages.get(timeout=PATIENCE)
        if message.topic.endswith(leaf):
            value = cbor2.loads(message.payload)
            assert cbor2.dumps(value, canonical=True) == message.payload, value
            return value


send = f"c/{setting['conversation']}/send"
sent = {2: MESSAGE_ID, 6: {"a": [1.5, None]}, "x": {"1": True}}
assert publish(send, cbor2.dumps(sent)) == 0
entry = read("/messages")
assert entry[1] == 1 and entry[3] == "alice" and entry[5] == 0, entry
assert {key: entry[key] for key in sent} == sent, entry

# A ciphertext stays bytes.
assert publish(send, cbor2.dumps({2: "2", 6: b"\x00\xff"})) == 0
assert read("/messages")[6] == b"\x00\xff"

# JSON is no CBOR, and said so.
assert publish(send, b'{"id":"3","body":1}') == 0x99

conversation = cbor2.dumps({"conversation": setting["conversation"]})
assert publish("q/history", conversation) == 0
answer = read("me/device")
assert answer[23] == "answer" and answer[20] == 200, answer
assert [one[1] for one in answer[6][50]] == [1, 2], answer
client.disconnect()
client.loop_stop()
