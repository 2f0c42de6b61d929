//! What an MQTT 3.1.1 client writes: packets appended to a buffer that is used again.

/// At least once: the level of every publish and subscription here.
const QOS_1: u8 = 1;

pub(crate) const PINGREQ: [u8; 2] = [0xC0, 0];
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];

/// Who connects.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) client_id: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
    /// 0 is none: then nobody has to write PINGREQ.
    pub(crate) keep_alive_seconds: u16,
}

/// What happens to the session when the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Session {
    Clean,
    Persistent,
}

pub(crate) fn connect(out: &mut Vec<u8>, login: &Login, session: Session) {
    let mut body = Vec::with_capacity(512);
    string(&mut body, "MQTT");
    body.push(4); // 3.1.1
    let clean = if session == Session::Clean { 0x02 } else { 0 };
    let username = if login.username.is_some() { 0x80 } else { 0 };
    let password = if login.password.is_some() { 0x40 } else { 0 };
    body.push(clean | username | password);
    body.extend_from_slice(&login.keep_alive_seconds.to_be_bytes());
    string(&mut body, &login.client_id);
    for text in [&login.username, &login.password].into_iter().flatten() {
        string(&mut body, text);
    }
    packet(out, 0x10, &body);
}

pub(crate) fn subscribe(out: &mut Vec<u8>, packet_id: u16, filter: &str) {
    let mut body = packet_id.to_be_bytes().to_vec();
    string(&mut body, filter);
    body.push(QOS_1);
    packet(out, 0x82, &body);
}

pub(crate) fn puback(out: &mut Vec<u8>, packet_id: u16) {
    let [high, low] = packet_id.to_be_bytes();
    out.extend_from_slice(&[0x40, 2, high, low]);
}

/// A QoS 1 PUBLISH, and where its packet id and its payload begin.
pub(crate) fn publish(topic: &str, payload: &[u8]) -> (Vec<u8>, usize, usize) {
    let mut body = Vec::new();
    string(&mut body, topic);
    let packet_id_at = body.len();
    body.extend_from_slice(&[0, 0]);
    body.extend_from_slice(payload);
    let mut out = Vec::new();
    packet(&mut out, 0x30 | QOS_1 << 1, &body);
    let header = out.len() - body.len();
    (out, header + packet_id_at, header + packet_id_at + 2)
}

fn packet(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    let mut rest = body.len();
    loop {
        let [low, ..] = rest.to_le_bytes();
        rest >>= 7;
        out.push(low & 0x7F | if rest > 0 { 0x80 } else { 0 });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
}

fn string(out: &mut Vec<u8>, text: &str) {
    let length = u16::try_from(text.len()).expect("names, tokens and topics here are short");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connect_is_what_the_specification_draws() {
        let mut out = Vec::new();
        let login = Login {
            client_id: "a".into(),
            username: Some("u".into()),
            password: Some("p".into()),
            keep_alive_seconds: 0,
        };
        connect(&mut out, &login, Session::Persistent);
        assert_eq!(
            out,
            b"\x10\x13\x00\x04MQTT\x04\xC0\x00\x00\x00\x01a\x00\x01u\x00\x01p"
        );
    }

    #[test]
    fn a_long_packet_has_a_length_of_two_bytes() {
        let (packet, packet_id_at, payload_at) = publish("t", &[b'x'; 200]);
        assert_eq!(packet[..6], [0x32, 0xCD, 0x01, 0, 1, b't']);
        assert_eq!((packet_id_at, payload_at), (6, 8));
        assert_eq!(packet.len(), 208);
    }
}
