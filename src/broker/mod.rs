//! MQTT on real sockets.
