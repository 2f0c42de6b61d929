// web-push sends one notification; the status of the answer is printed.
'use strict';

const fs = require('node:fs');
const crypto = require('node:crypto');
const http = require('node:http');
const webPush = require('web-push');

const setting = JSON.parse(process.argv[2]);
const key = crypto.createPrivateKey(fs.readFileSync(setting.vapidKey)).export({ format: 'jwk' });
const point = [key.x, key.y].map((part) => Buffer.from(part, 'base64url'));
const options = {
  vapidDetails: {
    subject: 'mailto:push@example.com',
    publicKey: Buffer.concat([Buffer.from([4]), ...point]).toString('base64url'),
    privateKey: key.d,
  },
  TTL: 60,
  urgency: 'high',
  topic: 'talk',
};

// Over plain HTTP the library does not send: it says what it would.
function sendPlainly() {
  const { endpoint, method, headers, body } = webPush.generateRequestDetails(
    setting.subscription, setting.text, options);
  return new Promise((resolve, reject) => {
    const request = http.request(endpoint, { method, headers }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode));
    });
    request.on('error', reject);
    request.end(body);
  });
}

async function send() {
  if (setting.subscription.endpoint.startsWith('http:')) return sendPlainly();
  try {
    const answer = await webPush.sendNotification(setting.subscription, setting.text, options);
    return answer.statusCode;
  } catch (error) {
    if (error.statusCode === undefined) throw error;
    return error.statusCode;
  }
}

send().then(console.log, (error) => {
  console.error(error);
  process.exit(1);
});
