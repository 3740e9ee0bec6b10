//! What only shows when values are held against each other.

use crate::parse::Places;
use crate::reader::Report;
use crate::{Config, Interface, Transport};
use std::net::{IpAddr, SocketAddr};

/// Longest path of a Unix socket (sockaddr_un's 108 bytes less the closing zero).
const SOCKET_PATH_BYTES_MAX: usize = 107;

pub(crate) fn judge(config: &Config, places: &Places, report: &mut Report<'_>) {
    let socket_bytes = config.dataplane_socket().as_os_str().len();
    if socket_bytes > SOCKET_PATH_BYTES_MAX {
        let excess = socket_bytes - SOCKET_PATH_BYTES_MAX;
        let message =
            format!("{excess} bytes too long for the socket inside it (run/dataplane.sock)");
        report.add(places.data_dir, "data_dir", message);
    }
    judge_interfaces(config, places, report);
    judge_listeners(config, places, report);
    judge_http(config, places, report);
    if let Some(calls_max) = config.sip.calls_max {
        let fitting = config.calls_fitting_ports();
        if calls_max > fitting {
            let message =
                format!("{calls_max} calls do not fit: the port ranges have room for {fitting}");
            report.add(places.calls_max, "sip.calls_max", message);
        }
    }
}

fn judge_interfaces(config: &Config, places: &Places, report: &mut Report<'_>) {
    for (index, interface) in config.interfaces.iter().enumerate() {
        let (at, key) = &places.interfaces[index];
        if let Some(why) = implausible_interface(interface) {
            report.add(*at, key, why);
        }
        for earlier in &config.interfaces[..index] {
            if earlier.name == interface.name
                && earlier.address.is_ipv4() == interface.address.is_ipv4()
            {
                let message = format!(
                    "interface {:?} already has an address of this family",
                    interface.name
                );
                report.add(*at, key, message);
            } else if share_an_address(earlier.address, interface.address)
                && earlier.ports.first <= interface.ports.last
                && interface.ports.first <= earlier.ports.last
            {
                let message = format!(
                    "ports {} of {} are also those of interface {:?}",
                    interface.ports, interface.address, earlier.name
                );
                report.add(*at, key, message);
            }
        }
    }
}

fn implausible_interface(interface: &Interface) -> Option<String> {
    let address = interface.address;
    if let Some(why) = not_a_host(address) {
        return Some(format!("{address} is {why}"));
    }
    if address.is_unspecified() && interface.advertise.is_none() {
        return Some(format!(
            "{address} cannot be told to peers: set `advertise` as well"
        ));
    }
    let advertise = interface.advertise?;
    if advertise.is_ipv4() != address.is_ipv4() {
        return Some(format!(
            "{advertise} (advertise) and {address} are of different families"
        ));
    }
    if advertise.is_unspecified() {
        return Some(format!("{advertise} cannot be told to peers (advertise)"));
    }
    not_a_host(advertise).map(|why| format!("{advertise} (advertise) is {why}"))
}

fn not_a_host(address: IpAddr) -> Option<&'static str> {
    if address.is_multicast() {
        return Some("a multicast address");
    }
    match address {
        IpAddr::V4(address) if address.is_broadcast() => Some("the broadcast address"),
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Some("an IPv4 address written as IPv6; write it as IPv4")
        }
        _ => None,
    }
}

/// Whether two sockets on these addresses would compete for a port.
fn share_an_address(left: IpAddr, right: IpAddr) -> bool {
    left.is_ipv4() == right.is_ipv4()
        && (left == right || left.is_unspecified() || right.is_unspecified())
}

fn judge_listeners(config: &Config, places: &Places, report: &mut Report<'_>) {
    let place = |index: usize| places.listen.get(index).copied().unwrap_or_default();
    for (index, listen) in config.sip.listen.iter().enumerate() {
        if let Some(why) = not_a_host(listen.address.ip()) {
            report.add(
                place(index),
                "sip.listen",
                format!("{} is {why}", listen.address.ip()),
            );
        }
        let taken = config.sip.listen[..index].iter().any(|earlier| {
            earlier.transport == listen.transport && collide(earlier.address, listen.address)
        });
        if taken {
            report.add(
                place(index),
                "sip.listen",
                format!("{listen} is listened on twice"),
            );
        }
        if listen.transport == Transport::Tcp && collide(listen.address, config.control.http) {
            report.add(
                place(index),
                "sip.listen",
                format!("{listen} is also control.http"),
            );
        }
        let media = config.interfaces.iter().find(|interface| {
            listen.transport == Transport::Udp
                && share_an_address(interface.address, listen.address.ip())
                && interface.ports.contains(listen.address.port())
        });
        if let Some(interface) = media {
            let message = format!(
                "{listen} lies within the media ports {} of {:?}",
                interface.ports, interface.name
            );
            report.add(place(index), "sip.listen", message);
        }
    }
}

fn collide(left: SocketAddr, right: SocketAddr) -> bool {
    left.port() == right.port() && share_an_address(left.ip(), right.ip())
}

fn judge_http(config: &Config, places: &Places, report: &mut Report<'_>) {
    let http = config.control.http;
    if let Some(why) = not_a_host(http.ip()) {
        report.add(
            places.http,
            "control.http",
            format!("{} is {why}", http.ip()),
        );
    } else if !http.ip().is_loopback() {
        let missing = if config.control.token.is_none() {
            "a token is missing and "
        } else {
            ""
        };
        let message = format!(
            "{http} is not a loopback address, so it takes a token and TLS; {missing}TLS (tls_certificate, \
             tls_key) is not supported yet: listen on loopback"
        );
        report.add(places.http, "control.http", message);
    }
}
