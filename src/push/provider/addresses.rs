//! Where notifications may go. The endpoint of a Web Push subscription is what a device says;
//! it must not make the server knock at the doors of its own network.
//!
//! Names are resolved here and the addresses judged here, and what is left is what is connected
//! to: an answer of the DNS that changes in between is not asked for again.

use std::{io, net::SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::domain::address::is_public;

/// The name has no address, or the address is none, that everybody can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the endpoint is not at a public address")]
pub(super) struct NotPublic;

/// The system's resolver, and of its answers the public addresses.
pub(super) struct PublicResolver;

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: io::Result<Vec<_>> = tokio::net::lookup_host((name.as_str(), 0))
                .await
                .map(Iterator::collect);
            Ok(public(found?)?)
        })
    }
}

fn public(found: Vec<SocketAddr>) -> Result<Addrs, NotPublic> {
    let public: Vec<_> = found
        .into_iter()
        .filter(|address| is_public(address.ip()))
        .collect();
    if public.is_empty() {
        return Err(NotPublic);
    }
    Ok(Box::new(public.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_several_addresses_the_public_ones_are_left() {
        let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        let left: Vec<_> = public(addresses(&["10.0.0.1:0", "1.1.1.1:0", "[::1]:0"]))
            .unwrap()
            .collect();
        assert_eq!(left, addresses(&["1.1.1.1:0"]));
        assert_eq!(public(addresses(&["10.0.0.1:0"])).err(), Some(NotPublic));
    }
}
