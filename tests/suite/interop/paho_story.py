"""The story of interop/mod.rs, told by paho-mqtt. One argument: its setting, as JSON."""

import json
import queue
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE = 20  # seconds; only a failure waits so long

setting = json.loads(sys.argv[1])
is_v5 = setting["version"] == 5


class Client:
    """One connection; what happens to it waits in queues."""

    def __init__(self, user, client_id, token):
        self.connects, self.subscribes = queue.Queue(), queue.Queue()
        self.publishes, self.messages, self.ends = queue.Queue(), queue.Queue(), queue.Queue()
        version = mqtt.MQTTv5 if is_v5 else mqtt.MQTTv311
        clean = {} if is_v5 else {"clean_session": False}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=version, **clean
        )
        self.client.username_pw_set(user, token)
        self.client.on_connect = lambda c, u, flags, code, p: self.connects.put((flags, code))
        self.client.on_subscribe = lambda c, u, mid, codes, p: self.subscribes.put(codes)
        self.client.on_publish = lambda c, u, mid, code, p: self.publishes.put((code, p))
        self.client.on_message = self.on_message
        self.client.on_disconnect = lambda c, u, flags, code, p: self.ends.put(code)
        v5 = {}
        if is_v5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 3600
            v5 = {"clean_start": False, "properties": properties}
        self.client.connect("127.0.0.1", setting["mqtt"], **v5)
        self.client.loop_start()
        self.flags, self.code = self.connects.get(timeout=PATIENCE)

    def on_message(self, client, userdata, message):
        if not message.topic.endswith("/receipts"):
            self.messages.put(message)

    def subscribe(self, topic):
        self.client.subscribe(topic, 1)
        codes = self.subscribes.get(timeout=PATIENCE)
        assert [code.value for code in codes] == [1], codes

    def publish(self, conversation, message_id):
        """Waits for the PUBACK: its reason code, and the sequence if it names one."""
        payload = json.dumps({"id": message_id, "body": message_id})
        self.client.publish(f"c/{conversation}/send", payload, 1)
        code, properties = self.publishes.get(timeout=PATIENCE)
        user = dict(getattr(properties, "UserProperty", [])) if properties else {}
        return code.value, user.get("seq")

    def entry(self):
        message = self.messages.get(timeout=PATIENCE)
        assert message.topic == f"c/{setting['conversation']}/messages", message.topic
        assert message.qos == 1
        entry = json.loads(message.payload)
        return entry["seq"], entry["id"]

    def leave(self):
        self.client.disconnect()
        self.ends.get(timeout=PATIENCE)
        self.client.loop_stop()


stranger = Client("alice", "stranger", "not a token")
# 3.1.1 knows 4, which paho shows as the reason code of MQTT 5 of the same meaning.
assert stranger.code.value == 0x86, stranger.code
stranger.client.loop_stop()

bob = Client("bob", "paho", setting["bob"])
assert bob.code.value == 0, bob.code
assert not bob.flags.session_present
bob.subscribe("c/#")

alice = Client("alice", "paho", setting["alice"])
alice.subscribe("me/device")
code, seq = alice.publish(setting["conversation"], "live")
assert (code, seq) == (0, "1" if is_v5 else None), (code, seq)
assert bob.entry() == (1, "live")
bob.leave()

for number, message_id in enumerate(setting["missed"], 2):
    code, seq = alice.publish(setting["conversation"], message_id)
    assert (code, seq) == (0, str(number) if is_v5 else None), (code, seq)

bob = Client("bob", "paho", setting["bob"])
assert bob.flags.session_present
for number, message_id in enumerate(setting["missed"], 2):
    assert bob.entry() == (number, message_id)
alice.publish(setting["conversation"], "last")
assert bob.entry() == (7, "last")

code, _ = alice.publish(setting["foreign"], "refused")
if is_v5:
    assert code == 0x87, code
else:
    event = json.loads(alice.messages.get(timeout=PATIENCE).payload)
    assert (event["event"], event["id"], event["code"]) == ("refused", "refused", 0x87), event
bob.leave()
alice.leave()
