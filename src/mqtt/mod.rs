//! All of MQTT: no socket, no clock, no async.
