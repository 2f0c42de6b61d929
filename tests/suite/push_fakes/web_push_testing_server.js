// The server of web-push-testing, on loopback and a port that is free: its own command listens
// everywhere, on a port it has to be told. Prints the port.
'use strict';

const { PushApiModel } = require('web-push-testing/src/PushApiModel.js');
const Server = require('web-push-testing/src/server.js');

const model = new PushApiModel();
const server = new Server(model, 0);
server.setRequestHandlers();
const listener = server._app.listen(0, '127.0.0.1', () => {
  const { port } = listener.address();
  model.notifyUrl = `http://localhost:${port}/notify/`;
  console.log(port);
});
