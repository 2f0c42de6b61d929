//! The device side: what an MQTT client of Homing does.
