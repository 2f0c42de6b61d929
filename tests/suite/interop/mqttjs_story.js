// The story of interop/mod.rs, told by mqtt.js over WebSocket. One argument: its setting, as JSON.
"use strict";

const assert = require("node:assert/strict");
const mqtt = require("mqtt");

const PATIENCE = 20_000; // milliseconds; only a failure waits so long
const setting = JSON.parse(process.argv[2]);
const isV5 = setting.version === 5;

// One connection; what happens to it waits in lists.
class Client {
  constructor(user, clientId, token) {
    this.entries = [];
    this.waiting = [];
    this.client = mqtt.connect(`ws://127.0.0.1:${setting.http}/mqtt`, {
      protocolVersion: setting.version,
      clientId,
      username: user,
      password: token,
      clean: false,
      reconnectPeriod: 0,
      properties: isV5 ? { sessionExpiryInterval: 3600 } : undefined,
    });
    this.client.on("message", (topic, payload) => {
      if (topic.endsWith("/receipts")) return;
      const message = { topic, payload: JSON.parse(payload) };
      const waiting = this.waiting.shift();
      if (waiting) waiting(message);
      else this.entries.push(message);
    });
    this.client.on("packetreceive", (packet) => {
      if (packet.cmd === "puback") this.lastPuback = packet;
    });
  }

  // Resolves with the CONNACK, rejects with the refusal.
  connected() {
    return new Promise((resolve, reject) => {
      this.client.on("connect", resolve);
      this.client.on("error", reject);
    });
  }

  // Waits for the PUBACK: its reason code, and the sequence if it names one.
  async publish(conversation, id) {
    const payload = JSON.stringify({ id, body: id });
    const refusal = await new Promise((resolve) => {
      this.client.publish(`c/${conversation}/send`, payload, { qos: 1 }, resolve);
    });
    const { userProperties } = this.lastPuback.properties ?? {};
    return [refusal ? refusal.code : 0, userProperties?.seq];
  }

  message() {
    const message = this.entries.shift();
    return message ?? new Promise((resolve) => this.waiting.push(resolve));
  }

  async entry() {
    const { topic, payload } = await this.message();
    assert.equal(topic, `c/${setting.conversation}/messages`);
    return [payload.seq, payload.id];
  }

  leave() {
    return this.client.endAsync();
  }
}

async function story() {
  const stranger = new Client("alice", "stranger", "not a token");
  await assert.rejects(stranger.connected(), { code: isV5 ? 0x86 : 4 });

  let bob = new Client("bob", "mqttjs", setting.bob);
  assert.equal((await bob.connected()).sessionPresent, false);
  const [granted] = await bob.client.subscribeAsync("c/#", { qos: 1 });
  assert.equal(granted.qos, 1);

  const alice = new Client("alice", "mqttjs", setting.alice);
  await alice.connected();
  await alice.client.subscribeAsync("me/device", { qos: 1 });
  const seq = (number) => (isV5 ? String(number) : undefined);
  assert.deepEqual(await alice.publish(setting.conversation, "live"), [0, seq(1)]);
  assert.deepEqual(await bob.entry(), [1, "live"]);
  await bob.leave();

  for (const [place, id] of setting.missed.entries()) {
    assert.deepEqual(await alice.publish(setting.conversation, id), [0, seq(place + 2)]);
  }

  bob = new Client("bob", "mqttjs", setting.bob);
  assert.equal((await bob.connected()).sessionPresent, true);
  for (const [place, id] of setting.missed.entries()) {
    assert.deepEqual(await bob.entry(), [place + 2, id]);
  }
  await alice.publish(setting.conversation, "last");
  assert.deepEqual(await bob.entry(), [7, "last"]);

  const [code] = await alice.publish(setting.foreign, "refused");
  if (isV5) {
    assert.equal(code, 0x87);
  } else {
    const { payload } = await alice.message();
    assert.deepEqual([payload.event, payload.id, payload.code], ["refused", "refused", 0x87]);
  }
  await bob.leave();
  await alice.leave();
}

const tooLong = setTimeout(() => {
  console.error("something that must come did not come");
  process.exit(1);
}, PATIENCE);
story().then(
  () => clearTimeout(tooLong),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
