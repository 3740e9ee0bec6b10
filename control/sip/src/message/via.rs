//! The Via header (RFC 3261 section 20.42, RFC 3581, RFC 5118).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::error::HeaderError;
use super::params::Params;
use super::text::{is_token, trim};
use super::uri::{host_ip, split_host_port};

/// The prefix of branches made by RFC 3261 elements.
pub const MAGIC_COOKIE: &str = "z9hG4bK";

/// One Via element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Via {
    /// The transport as written: `UDP`, `TCP`, `TLS`, any token.
    pub transport: String,
    /// The host of sent-by, IPv6 in brackets.
    pub host: String,
    pub port: Option<u16>,
    pub params: Params,
}

impl Via {
    /// Parses one element.
    ///
    /// # Errors
    /// A protocol other than SIP/2.0, a bad host or port, empty or bad parameters.
    pub fn parse(text: &str) -> Result<Via, HeaderError> {
        let error = |why| HeaderError::new("Via", why);
        let text = trim(text);
        let (protocol, rest) = text.split_once('/').ok_or_else(|| error("no protocol"))?;
        let (version, rest) = rest.split_once('/').ok_or_else(|| error("no version"))?;
        if !trim(protocol).eq_ignore_ascii_case("SIP") || trim(version) != "2.0" {
            return Err(error("protocol is not SIP/2.0"));
        }
        let rest = trim(rest);
        let space = rest.find([' ', '\t']).ok_or_else(|| error("no sent-by"))?;
        let (transport, rest) = rest.split_at(space);
        if !is_token(transport) {
            return Err(error("bad transport"));
        }
        let (sent_by, params) = match rest.find(';') {
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
            None => (rest, None),
        };
        // White space may surround the colon of sent-by.
        let sent_by: String = sent_by.split([' ', '\t']).collect();
        let (host, port) = split_host_port(&sent_by).ok_or_else(|| error("bad sent-by"))?;
        let params = match params {
            Some(params) => Params::parse(params, true).map_err(error)?,
            None => Params::default(),
        };
        let (transport, host) = (transport.to_owned(), host.to_owned());
        Ok(Via {
            transport,
            host,
            port,
            params,
        })
    }

    /// The branch parameter.
    pub fn branch(&self) -> Option<&str> {
        self.params.get("branch")
    }

    /// The branch if it identifies a transaction by RFC 3261's rules: magic cookie and
    /// something behind it.
    pub fn transaction_branch(&self) -> Option<&str> {
        let branch = self.branch()?;
        let cookie = branch.get(..MAGIC_COOKIE.len())?;
        let ours = cookie.eq_ignore_ascii_case(MAGIC_COOKIE) && branch.len() > MAGIC_COOKIE.len();
        ours.then_some(branch)
    }

    /// The received parameter; RFC 5118 section 4.5 wants it read with and without brackets.
    pub fn received(&self) -> Option<IpAddr> {
        self.params.get("received").and_then(host_ip)
    }

    /// The filled-in rport (RFC 3581).
    pub fn rport(&self) -> Option<u16> {
        self.params.get("rport").and_then(|text| text.parse().ok())
    }

    /// Whether the client asked for symmetric response routing.
    pub fn wants_rport(&self) -> bool {
        self.params.has("rport")
    }

    /// The default port of the transport.
    pub fn default_port(&self) -> u16 {
        if self.transport.eq_ignore_ascii_case("TLS") {
            5061
        } else {
            5060
        }
    }

    /// sent-by in a form to compare: lower case, port made explicit.
    pub fn sent_by(&self) -> String {
        let port = self.port.unwrap_or(self.default_port());
        format!("{}:{port}", self.host.to_ascii_lowercase())
    }

    /// What the server transport notes about the source (RFC 3261 section 18.2.1, RFC 3581
    /// section 4): `received` when sent-by's host is not the source address or rport was
    /// asked for, and the port in `rport`. A `received` the sender wrote itself is replaced.
    pub fn note_source(&mut self, source: SocketAddr) {
        self.params.remove("received");
        if host_ip(&self.host) != Some(source.ip()) || self.wants_rport() {
            self.params.set("received", Some(&source.ip().to_string()));
        }
        if self.wants_rport() {
            self.params.set("rport", Some(&source.port().to_string()));
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SIP/2.0/{} {}", self.transport, self.host)?;
        if let Some(port) = self.port {
            write!(formatter, ":{port}")?;
        }
        write!(formatter, "{}", self.params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_but_valid_forms() {
        let via =
            Via::parse("SIP  / 2.0  / TCP     spindle.example.com   ;  branch  =   z9hG4bK9ikj8")
                .unwrap();
        assert_eq!(
            (via.transport.as_str(), via.host.as_str()),
            ("TCP", "spindle.example.com")
        );
        assert_eq!(via.transaction_branch(), Some("z9hG4bK9ikj8"));
        let via = Via::parse(
            "SIP/2.0/UDP [2001:db8::9:1]:5070;received=[2001:db8::9:255];rport;branch=z9hG4bKas3",
        )
        .unwrap();
        assert_eq!(via.received(), Some("2001:db8::9:255".parse().unwrap()));
        assert_eq!(
            (via.port, via.wants_rport(), via.rport()),
            (Some(5070), true, None)
        );
        assert_eq!(
            Via::parse("SIP/2.0/UDP h : 5060;branch=z9hG4bK")
                .unwrap()
                .transaction_branch(),
            None
        );
        assert_eq!(
            Via::parse("SIP/2.0/UDP [::1]").unwrap().to_string(),
            "SIP/2.0/UDP [::1]"
        );
    }

    #[test]
    fn refused_forms() {
        for text in [
            "SIP/2.0/UDP 192.0.2.15;;,;,,",
            "SIP/2.0/UDP",
            "SIP/3.0/UDP h",
            "SIP/2.0/UDP h;;branch=1",
            "SIP/2.0/UDP [::1",
            "SIP/2.0/UDP h:99999",
            "UDP h",
            "",
        ] {
            assert!(Via::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_source_is_noted_as_rfc_3581_says() {
        let source = "192.0.2.1:9988".parse().unwrap();
        let mut via = Via::parse("SIP/2.0/UDP 10.1.1.1:4540;rport;branch=z9hG4bKkjshdyff").unwrap();
        via.note_source(source);
        assert_eq!(via.received(), Some("192.0.2.1".parse().unwrap()));
        assert_eq!(via.rport(), Some(9988));
        let mut via =
            Via::parse("SIP/2.0/UDP 192.0.2.1:4540;received=6.6.6.6;branch=z9hG4bKk").unwrap();
        via.note_source(source);
        assert_eq!((via.received(), via.rport()), (None, None));
    }
}
