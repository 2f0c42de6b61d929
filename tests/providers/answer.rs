//! A request as the services judge it, and their answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Response, StatusCode, header::HeaderMap};
use serde_json::Value;

use super::script::Refusal;

/// A request that has come whole.
pub(crate) struct Call {
    pub(crate) method: String,
    /// With the query, if there is one.
    pub(crate) path: String,
    /// The host, and the port if it is named.
    pub(crate) authority: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    /// The only value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Every header, and the authority.
    pub(crate) fn header_map(&self) -> BTreeMap<String, String> {
        self.headers
            .iter()
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                (name.as_str().to_owned(), value)
            })
            .chain([(":authority".to_owned(), self.authority.clone())])
            .collect()
    }
}

/// What a service thinks of a request.
pub(crate) struct Judged {
    /// The device token, as far as it could be read.
    pub(crate) token: String,
    /// What the provider will call the notification.
    pub(crate) id: String,
    /// What the device would get.
    pub(crate) verdict: Result<Value, Refusal>,
}

/// An answer before it has a `Date`.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self {
            status,
            headers: vec![("content-type", "application/json; charset=UTF-8".to_owned())],
            body: body.to_string().into_bytes(),
        }
    }

    pub(crate) fn empty(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn into_response(self, date: &str) -> Response<Full<Bytes>> {
        let mut response = Response::builder()
            .status(StatusCode::from_u16(self.status).unwrap())
            .header("date", date);
        for (name, value) in self.headers {
            response = response.header(name, value);
        }
        response.body(Full::from(self.body)).unwrap()
    }
}
