//! Where a SIP host name leads: RFC 3263, from the DNS.
//!
//! [`Resolver::locate`] gives every place in the order in which they are to be tried; the B2BUA goes on to the
//! next when one fails. Answers are kept as long as their TTL says, those that say "nothing" too.

mod dns;
mod order;
mod silence;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use trunkline_config::Sip;
use trunkline_sip::transaction::Transport;

use crate::b2bua::{Hop, Lookup};
use dns::Dns;
use silence::Silence;

/// What is not found out about a name by then does not count.
const PATIENCE: Duration = Duration::from_secs(5);
/// Services that are not told by then are taken for none: some name servers never answer what they do not
/// know, and most names have no such records.
const SERVICE_PATIENCE: Duration = Duration::from_millis(1_200);
/// Places that one name may lead to.
const HOPS_MAX: usize = 16;
/// The port where none is said (RFC 3261 section 19.1.2).
const PORT: u16 = 5060;

/// Looks up SIP host names.
#[derive(Clone)]
pub struct Resolver {
    dns: Dns,
    /// Questions about services that no name server answers.
    silence: Silence,
    /// Transports that we have, the preferred one first.
    transports: Vec<Transport>,
}

impl Resolver {
    /// Asks `sip.nameservers`, or the system's. To be made inside a tokio runtime.
    ///
    /// # Errors
    /// The name servers cannot be used.
    pub fn new(sip: &Sip) -> anyhow::Result<Self> {
        let ours = |transport| {
            sip.listen
                .iter()
                .any(|listen| listen.transport == transport)
        };
        let both = [
            (trunkline_config::Transport::Udp, Transport::Udp),
            (trunkline_config::Transport::Tcp, Transport::Tcp),
        ];
        let transports = both.into_iter().filter(|(listens, _)| ours(*listens));
        Ok(Self {
            dns: Dns::new(&sip.nameservers)?,
            silence: Silence::default(),
            transports: transports.map(|(_, transport)| transport).collect(),
        })
    }

    /// The places that a name leads to, in order; none = nobody is there.
    pub async fn locate(&self, lookup: &Lookup) -> Vec<Hop> {
        let deadline = Instant::now() + PATIENCE;
        let mut hops = self.by_services(lookup, deadline).await;
        if hops.is_empty() {
            hops = self.by_address(lookup, deadline).await;
        }
        let mut seen = Vec::new();
        hops.retain(|hop| {
            let fresh = !seen.contains(hop);
            seen.push(*hop);
            fresh
        });
        hops.truncate(HOPS_MAX);
        hops
    }

    /// RFC 3263 sections 4.1 and 4.2, as far as records of services lead.
    async fn by_services(&self, lookup: &Lookup, deadline: Instant) -> Vec<Hop> {
        if lookup.port.is_some() || is_localhost(&lookup.host) {
            return Vec::new();
        }
        let services = self.services(&lookup.host, lookup.transport).await;
        let told = join_all(services.iter().map(|(_, name)| self.srv(name))).await;
        let mut places = Vec::new();
        for ((transport, _), records) in services.iter().zip(told) {
            let drawn = order::by_weight(records, &mut rand::rng());
            places.extend(drawn.into_iter().map(|srv| (*transport, srv)));
        }
        places.truncate(HOPS_MAX);
        let found = places
            .iter()
            .map(|(transport, srv)| self.addresses(*transport, &srv.target, srv.port, deadline));
        join_all(found).await.concat()
    }

    /// The host itself.
    async fn by_address(&self, lookup: &Lookup, deadline: Instant) -> Vec<Hop> {
        let transport = lookup.transport.or(self.transports.first().copied());
        let transport = transport.unwrap_or(Transport::Udp);
        let port = lookup.port.unwrap_or(PORT);
        self.addresses(transport, &lookup.host, port, deadline)
            .await
    }

    /// The names of SRV records to ask for, with the transport of each, in order of preference.
    async fn services(&self, host: &str, asked: Option<Transport>) -> Vec<(Transport, String)> {
        let by_rule = |transport: Transport| {
            let protocol = transport.param_name();
            (transport, format!("_sip._{protocol}.{host}"))
        };
        if let Some(transport) = asked {
            return vec![by_rule(transport)];
        }
        let told = order::by_preference(self.naptr(host).await, &self.transports);
        if told.is_empty() {
            return self.transports.iter().copied().map(by_rule).collect();
        }
        told
    }

    async fn naptr(&self, name: &str) -> Vec<order::Naptr> {
        let (dns, asked) = (self.dns.clone(), name.to_owned());
        let answer = async move { dns.naptr(&asked).await };
        let question = format!("NAPTR {name}");
        self.silence
            .within(question, SERVICE_PATIENCE, answer)
            .await
    }

    async fn srv(&self, name: &str) -> Vec<order::Srv> {
        let (dns, asked) = (self.dns.clone(), name.to_owned());
        let answer = async move { dns.srv(&asked).await };
        let question = format!("SRV {name}");
        self.silence
            .within(question, SERVICE_PATIENCE, answer)
            .await
    }

    async fn addresses(
        &self,
        transport: Transport,
        host: &str,
        port: u16,
        deadline: Instant,
    ) -> Vec<Hop> {
        // A target of an SRV record may be an address that somebody wrote there.
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.dns.addresses(host, deadline).await,
        };
        let hop = |address| Hop {
            transport,
            address: SocketAddr::new(address, port),
        };
        addresses.into_iter().map(hop).collect()
    }
}

/// A name that no name server is asked about (RFC 6761 section 6.3).
fn is_localhost(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}

#[cfg(test)]
mod tests;
