//! Packets of a device, as bytes.

/// A CONNECT, right or wrong.
#[derive(Clone, Debug)]
pub(crate) struct Connect {
    name: &'static str,
    level: u8,
    client_id: String,
    user_name: Option<String>,
    password: Option<String>,
    is_clean: bool,
    keep_alive_seconds: u16,
    has_will: bool,
    flags: u8,
    properties: Vec<u8>,
}

impl Connect {
    /// MQTT 5; the session ends with the connection.
    pub(crate) fn v5(client_id: &str, token: &str) -> Self {
        Self {
            name: "MQTT",
            level: 5,
            client_id: client_id.to_owned(),
            user_name: None,
            password: Some(token.to_owned()),
            is_clean: false,
            keep_alive_seconds: 0,
            has_will: false,
            flags: 0,
            properties: Vec::new(),
        }
    }

    /// MQTT 3.1.1; the session lasts.
    pub(crate) fn v3(client_id: &str, user: &str, token: &str) -> Self {
        Self {
            level: 4,
            user_name: Some(user.to_owned()),
            ..Self::v5(client_id, token)
        }
    }

    /// Clean Start, or Clean Session in MQTT 3.1.1.
    pub(crate) fn clean(mut self) -> Self {
        self.is_clean = true;
        self
    }

    pub(crate) fn keep_alive(mut self, seconds: u16) -> Self {
        self.keep_alive_seconds = seconds;
        self
    }

    /// Adds a property of MQTT 5: its identifier and its value.
    pub(crate) fn property(mut self, bytes: &[u8]) -> Self {
        self.properties.extend_from_slice(bytes);
        self
    }

    /// Session Expiry Interval.
    pub(crate) fn expiry(self, seconds: u32) -> Self {
        let [a, b, c, d] = seconds.to_be_bytes();
        self.property(&[0x11, a, b, c, d])
    }

    pub(crate) fn receive_max(self, count: u16) -> Self {
        let [a, b] = count.to_be_bytes();
        self.property(&[0x21, a, b])
    }

    pub(crate) fn packet_bytes_max(self, bytes: u32) -> Self {
        let [a, b, c, d] = bytes.to_be_bytes();
        self.property(&[0x27, a, b, c, d])
    }

    pub(crate) fn level(mut self, level: u8) -> Self {
        self.level = level;
        self
    }

    pub(crate) fn name(mut self, name: &'static str) -> Self {
        self.name = name;
        self
    }

    pub(crate) fn user_name(mut self, name: Option<&str>) -> Self {
        self.user_name = name.map(str::to_owned);
        self
    }

    pub(crate) fn password(mut self, password: Option<&str>) -> Self {
        self.password = password.map(str::to_owned);
        self
    }

    pub(crate) fn will(mut self) -> Self {
        self.has_will = true;
        self
    }

    /// Sets flags on top of those that the rest asks for.
    pub(crate) fn flags(mut self, flags: u8) -> Self {
        self.flags = flags;
        self
    }

    /// The version in which the server will answer.
    pub(crate) fn is_v5(&self) -> bool {
        self.level == 5
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let flags = self.flags
            | u8::from(self.is_clean) << 1
            | u8::from(self.has_will) << 2
            | u8::from(self.password.is_some()) << 6
            | u8::from(self.user_name.is_some()) << 7;
        let mut body = text(self.name);
        body.extend([self.level, flags]);
        body.extend(self.keep_alive_seconds.to_be_bytes());
        if self.is_v5() {
            body.extend(variable_length(self.properties.len()));
            body.extend(&self.properties);
        }
        body.extend(text(&self.client_id));
        if self.has_will {
            if self.is_v5() {
                body.push(0);
            }
            body.extend(text("c/will/send"));
            body.extend(text("gone"));
        }
        for field in [&self.user_name, &self.password].into_iter().flatten() {
            body.extend(text(field));
        }
        frame(0x10, &body)
    }
}

/// A packet: its first byte, its length, its body.
pub(crate) fn frame(first_byte: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first_byte];
    packet.extend(variable_length(body.len()));
    packet.extend(body);
    packet
}

/// A string with its length before it.
pub(crate) fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap();
    [&length.to_be_bytes()[..], text.as_bytes()].concat()
}

fn variable_length(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = u8::try_from(value & 0x7f).unwrap();
        value >>= 7;
        if value == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}
