//! A plain sip: target of a route.

use crate::Transport;
use std::net::IpAddr;

/// Where a target's host leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name to be resolved.
    Name(String),
}

/// `sip:[user@]host[:port][;transport=udp|tcp]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SipTarget {
    /// As written.
    pub uri: String,
    /// User part, still escaped; `None` keeps the request's.
    pub user: Option<String>,
    /// Host.
    pub host: Host,
    /// Port; `None` = what the DNS says, else 5060.
    pub port: Option<u16>,
    /// Transport; UDP unless the URI or the DNS says otherwise.
    pub transport: Transport,
    /// All parameters, as written, without the leading semicolon.
    pub parameters: String,
}

impl SipTarget {
    /// Whether the URI names its transport, so that the DNS has no say in it (RFC 3263 section 4.1).
    #[must_use]
    pub fn names_transport(&self) -> bool {
        let names = self.parameters.split(';').map(|one| one.split('=').next());
        names
            .flatten()
            .any(|name| name.eq_ignore_ascii_case("transport"))
    }

    /// Reads a target.
    ///
    /// # Errors
    /// What is wrong with it; "not supported yet" for what is defined but not built.
    pub fn parse(uri: &str) -> Result<Self, String> {
        let (scheme, rest) = uri.split_once(':').ok_or_else(|| not_a_target(uri))?;
        match scheme.to_ascii_lowercase().as_str() {
            "sip" => {}
            "sips" => return Err("sips: targets: not supported yet".to_owned()),
            "trunk" => return Err("trunk: targets: not supported yet".to_owned()),
            _ => return Err(not_a_target(uri)),
        }
        if rest.contains('?') {
            return Err(format!("{uri:?}: a target cannot carry headers (?)"));
        }
        if let Some(bad) = rest
            .chars()
            .find(|letter| !letter.is_ascii_graphic() || matches!(letter, '<' | '>' | '"'))
        {
            return Err(format!("{uri:?}: {bad:?} cannot stand in a SIP URI"));
        }
        let (user, rest) = match rest.rsplit_once('@') {
            Some(("", _)) => return Err(format!("{uri:?}: nothing before the @")),
            Some((user, rest)) => (Some(user.to_owned()), rest),
            None => (None, rest),
        };
        let (host_port, parameters) = rest.split_once(';').unwrap_or((rest, ""));
        let (host, port) = parse_host_port(host_port).map_err(|why| format!("{uri:?}: {why}"))?;
        let transport = parse_transport(parameters)?;
        Ok(Self {
            uri: uri.to_owned(),
            user,
            host,
            port,
            transport,
            parameters: parameters.to_owned(),
        })
    }
}

fn not_a_target(text: &str) -> String {
    format!(
        "{text:?} is no target; write \"sip:HOST\", \"sip:HOST:PORT;transport=tcp\" or \"request\""
    )
}

fn parse_transport(parameters: &str) -> Result<Transport, String> {
    for parameter in parameters.split(';') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if !name.eq_ignore_ascii_case("transport") {
            continue;
        }
        return match value.to_ascii_lowercase().as_str() {
            "udp" => Ok(Transport::Udp),
            "tcp" => Ok(Transport::Tcp),
            "tls" | "ws" | "wss" => Err(format!("transport={value}: not supported yet")),
            _ => Err(format!(
                "transport={value}: unknown transport; write udp or tcp"
            )),
        };
    }
    Ok(Transport::Udp)
}

fn parse_host_port(text: &str) -> Result<(Host, Option<u16>), String> {
    let (host, port) = if let Some(bracketed) = text.strip_prefix('[') {
        let (inside, after) = bracketed.split_once(']').ok_or("no ] after [")?;
        let address = inside
            .parse()
            .map_err(|_| format!("{inside:?} is no IPv6 address"))?;
        let port = match after {
            "" => None,
            after => Some(after.strip_prefix(':').ok_or("only :PORT may follow ]")?),
        };
        (Host::Address(IpAddr::V6(address)), port)
    } else {
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        (parse_name(host)?, port)
    };
    let port = match port {
        None => None,
        Some(digits) => match digits.parse::<u16>() {
            Ok(port) if port > 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(port),
            _ => return Err(format!("{digits:?} is no port (1-65535)")),
        },
    };
    Ok((host, port))
}

fn parse_name(host: &str) -> Result<Host, String> {
    if let Ok(address) = host.parse() {
        return Ok(Host::Address(IpAddr::V4(address)));
    }
    let label_is_fine = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    let name = host.strip_suffix('.').unwrap_or(host);
    let last = name.rsplit('.').next().unwrap_or_default();
    // A name whose last label is a number is a mistyped address (RFC 3261: toplabel begins with ALPHA).
    let numeric = last.bytes().all(|byte| byte.is_ascii_digit());
    if name.len() > 253 || numeric || !name.split('.').all(label_is_fine) {
        return Err(format!("{host:?} is neither an address nor a host name"));
    }
    Ok(Host::Name(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_every_accepted_form() {
        let plain = SipTarget::parse("sip:127.0.0.1:5070").unwrap();
        assert_eq!(plain.host, Host::Address("127.0.0.1".parse().unwrap()));
        assert_eq!(
            (plain.port, plain.user, plain.transport),
            (Some(5070), None, Transport::Udp)
        );
        let full = SipTarget::parse("SIP:bob@[2001:db8::1]:5080;transport=TCP;lr").unwrap();
        assert_eq!(full.host, Host::Address("2001:db8::1".parse().unwrap()));
        assert_eq!(full.user.as_deref(), Some("bob"));
        assert_eq!((full.port, full.transport), (Some(5080), Transport::Tcp));
        let name = SipTarget::parse("sip:pbx.example").unwrap();
        assert_eq!(
            (name.host, name.port),
            (Host::Name("pbx.example".to_owned()), None)
        );
    }

    #[test]
    fn what_is_no_target_is_refused_with_a_reason() {
        for (uri, reason) in [
            ("127.0.0.1:5070", "is no target"),
            ("sip:", "neither an address"),
            ("sip:@host", "nothing before"),
            ("sip:1.2.3.400", "neither an address"),
            ("sip:host:0", "is no port"),
            ("sip:host:+5", "is no port"),
            ("sip:host:99999", "is no port"),
            ("sip:[::1", "no ]"),
            ("sip:[::1]5060", "only :PORT"),
            ("sip:a b", "cannot stand"),
            ("sip:h?a=b", "headers"),
            ("sip:h;transport=tls", "not supported yet"),
            ("sip:h;transport=smoke", "unknown transport"),
            ("sips:h", "not supported yet"),
            ("trunk:carrier", "not supported yet"),
        ] {
            let error = SipTarget::parse(uri).unwrap_err();
            assert!(error.contains(reason), "{uri}: {error}");
        }
    }
}
