// Every kind of notification, and every kind of refusal, as @parse/node-apn understands them.
'use strict';

const assert = require('node:assert');
const fs = require('node:fs');
const apn = require('@parse/node-apn');

const setting = JSON.parse(process.argv[2]);
const [good, gone, busy, expired, bad] = setting.tokens;

function notification(change) {
  const note = new apn.Notification();
  note.topic = setting.topic;
  note.pushType = 'alert';
  note.priority = 10;
  note.expiry = Math.floor(Date.now() / 1000) + 3600;
  note.collapseId = 'talk';
  note.alert = { 'loc-key': 'HOMING_NEW_MESSAGE', 'loc-args': [] };
  note.mutableContent = 1;
  note.badge = 3;
  note.sound = 'default';
  note.threadId = 'talk';
  note.payload = { conversation: 'c' };
  change(note);
  return note;
}

function toBackground(note) {
  note.pushType = 'background';
  note.priority = 5;
  note.aps = { 'content-available': 1 };
}

function toVoip(note) {
  note.pushType = 'voip';
  note.topic += '.voip';
}

async function story() {
  const provider = new apn.Provider({
    token: { key: setting.key, keyId: setting.keyId, teamId: setting.teamId },
    address: 'localhost',
    port: setting.port,
    ca: fs.readFileSync(setting.ca),
    production: false,
    connectionRetryLimit: 2,
  });
  const accepted = async (change, token = good) => {
    const result = await provider.send(notification(change), token);
    assert.strictEqual(result.sent.length, 1, JSON.stringify(result));
    assert.strictEqual(result.sent[0].device, token);
    assert.match(result.sent[0]['apns-id'], /^[0-9A-F-]{36}$/);
  };
  const refused = async (token, status, reason, change = () => {}) => {
    const { sent, failed } = await provider.send(notification(change), token);
    assert.deepStrictEqual([sent.length, failed.length], [0, 1]);
    assert.strictEqual(failed[0].status, status, JSON.stringify(failed));
    assert.strictEqual(failed[0].response.reason, reason);
    return failed[0].response;
  };

  await accepted(() => {});
  await accepted(toBackground);
  await accepted(toVoip);
  const answer = await refused(gone, 410, 'Unregistered');
  assert.strictEqual(answer.timestamp, 1700000000000);
  await refused(busy, 429, 'TooManyRequests');
  await accepted(() => {}, expired); // the second time, with a token that it signed anew
  await refused(bad, 400, 'BadDeviceToken');
  await refused(good, 413, 'PayloadTooLarge', (note) => { note.body = 'x'.repeat(4096); });
  await refused(good, 400, 'TopicDisallowed', (note) => { note.topic = 'com.example.other'; });
  await refused(good, 400, 'BadPriority', (note) => { note.priority = 7; });
  await refused(good, 400, 'BadCollapseId', (note) => { note.collapseId = 'x'.repeat(65); });
  provider.shutdown();
}

story().catch((error) => {
  console.error(error);
  process.exit(1);
});
