//! Records of the DNS by `hickory-resolver`, which keeps them as long as they may be kept.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::time::{Instant, timeout_at};

use super::order::{Naptr, Srv};

/// The wait for one answer, and how often a question is asked.
const TIMEOUT: Duration = Duration::from_secs(1);
const ATTEMPTS: usize = 2;
/// How much longer than the one address family the other may take.
const FAMILY_PATIENCE: Duration = Duration::from_millis(500);
/// That there is no record is believed for so long at least: most names have no NAPTR.
const NOTHING_TTL: Duration = Duration::from_secs(10);
/// Names kept.
const CACHE_NAMES: u64 = 4096;

/// Asks name servers; `None` = only whatever else the system knows hosts by.
#[derive(Clone)]
pub(super) struct Dns(Option<TokioResolver>);

impl Dns {
    /// Asks these, or the system's where none is named.
    pub(super) fn new(servers: &[SocketAddr]) -> anyhow::Result<Self> {
        let mut builder = if servers.is_empty() {
            match TokioResolver::builder_tokio() {
                Ok(builder) => builder,
                Err(error) => {
                    tracing::warn!(%error, "no name servers of the system's: no SRV records, hosts as the system knows them");
                    return Ok(Self(None));
                }
            }
        } else {
            let servers = servers.iter().map(name_server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), servers);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options: &mut ResolverOpts = builder.options_mut();
        (options.timeout, options.attempts) = (TIMEOUT, ATTEMPTS);
        options.negative_min_ttl = Some(NOTHING_TTL);
        options.cache_size = CACHE_NAMES;
        let resolver = builder.build().context("sip.nameservers")?;
        Ok(Self(Some(resolver)))
    }

    /// NAPTR records of a domain.
    pub(super) async fn naptr(&self, name: &str) -> Vec<Naptr> {
        let records = self.records(name, RecordType::NAPTR).await.into_iter();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        records
            .filter_map(|record| match record {
                RData::NAPTR(naptr) => Some(Naptr {
                    order: naptr.order,
                    preference: naptr.preference,
                    flags: text(&naptr.flags),
                    services: text(&naptr.services),
                    replacement: host(&naptr.replacement),
                }),
                _ => None,
            })
            .collect()
    }

    /// SRV records of a service.
    pub(super) async fn srv(&self, name: &str) -> Vec<Srv> {
        let records = self.records(name, RecordType::SRV).await.into_iter();
        records
            .filter_map(|record| match record {
                RData::SRV(srv) => Some(Srv {
                    priority: srv.priority,
                    weight: srv.weight,
                    port: srv.port,
                    target: host(&srv.target),
                }),
                _ => None,
            })
            .collect()
    }

    /// Addresses of a host, IPv4 first, that are known by a deadline; of the hosts file too.
    pub(super) async fn addresses(&self, name: &str, deadline: Instant) -> Vec<IpAddr> {
        if self.0.is_none() {
            let found = timeout_at(deadline, tokio::net::lookup_host((name, 0))).await;
            let found = found.ok().and_then(Result::ok);
            return found.map_or(Vec::new(), |found| found.map(|one| one.ip()).collect());
        }
        let v4 = self.records(name, RecordType::A);
        let v6 = self.records(name, RecordType::AAAA);
        let (v4, v6) = both(v4, v6, deadline).await;
        let address = |record| match record {
            RData::A(v4) => Some(IpAddr::V4(v4.0)),
            RData::AAAA(v6) => Some(IpAddr::V6(v6.0)),
            _ => None,
        };
        v4.into_iter().chain(v6).filter_map(address).collect()
    }

    async fn records(&self, name: &str, kind: RecordType) -> Vec<RData> {
        // A name of one label is completed by the search list.
        let whole = name.contains('.') || super::is_localhost(name);
        let (Some(resolver), Ok(mut asked)) = (&self.0, Name::from_utf8(name)) else {
            return Vec::new();
        };
        asked.set_fqdn(whole);
        match resolver.lookup(asked, kind).await {
            Ok(found) => found.answers().iter().map(|one| one.data.clone()).collect(),
            Err(error) => {
                tracing::debug!(name, %kind, %error, "no record");
                Vec::new()
            }
        }
    }
}

/// Both, as far as they are known by a deadline; once one says something the other is not waited for long.
async fn both(
    first: impl Future<Output = Vec<RData>>,
    second: impl Future<Output = Vec<RData>>,
    deadline: Instant,
) -> (Vec<RData>, Vec<RData>) {
    tokio::pin!(first, second);
    let other = |found: &[RData]| match found.is_empty() {
        true => deadline,
        false => deadline.min(Instant::now() + FAMILY_PATIENCE),
    };
    tokio::select! {
        found = &mut first => {
            let rest = timeout_at(other(&found), second).await;
            (found, rest.unwrap_or_default())
        }
        found = &mut second => {
            let rest = timeout_at(other(&found), first).await;
            (rest.unwrap_or_default(), found)
        }
        () = tokio::time::sleep_until(deadline) => Default::default(),
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let mut server = NameServerConfig::udp_and_tcp(address.ip());
    for connection in &mut server.connections {
        connection.port = address.port();
    }
    server
}

/// A name without its last dot; empty = the root.
fn host(name: &Name) -> String {
    let text = name.to_ascii();
    text.strip_suffix('.').unwrap_or(&text).to_owned()
}
