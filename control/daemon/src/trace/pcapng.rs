//! SIP messages as pcapng, each an exported PDU (LINKTYPE_WIRESHARK_UPPER_PDU) that names its
//! dissector: any transport, any port, and Wireshark knows it for SIP.

use std::net::{IpAddr, SocketAddr};

use trunkline_sip::transaction::Transport;

use super::Message;

/// Blocks (draft-ietf-opsawg-pcapng).
const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const BYTE_ORDER: u32 = 0x1A2B_3C4D;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const LINKTYPE_UPPER_PDU: u16 = 252;

/// Tags of an exported PDU, and its port types.
const DISSECTOR: u16 = 12;
const IPV4: [u16; 2] = [20, 21];
const IPV6: [u16; 2] = [22, 23];
const PORT_TYPE: u16 = 24;
const PORTS: [u16; 2] = [25, 26];
const PORT_TYPE_TCP: u32 = 2;
const PORT_TYPE_UDP: u32 = 3;

/// The file that holds these messages.
#[must_use]
pub fn write(messages: &[Message]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut section = Vec::new();
    section.extend(BYTE_ORDER.to_le_bytes());
    section.extend([1, 0, 0, 0]);
    section.extend(u64::MAX.to_le_bytes());
    block(&mut file, SECTION_HEADER, &section);
    let mut interface = Vec::new();
    interface.extend(LINKTYPE_UPPER_PDU.to_le_bytes());
    interface.extend([0; 6]);
    // Option if_tsresol: milliseconds; then the end of options.
    interface.extend([9, 0, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
    block(&mut file, INTERFACE, &interface);
    for message in messages {
        let packet = exported(message);
        let at = u64::try_from(message.at.0).unwrap_or(0);
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        let mut body = Vec::with_capacity(packet.len() + 24);
        body.extend(0_u32.to_le_bytes());
        body.extend(((at >> 32) as u32).to_le_bytes());
        body.extend((at as u32).to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(packet);
        block(&mut file, ENHANCED_PACKET, &body);
    }
    file
}

fn block(file: &mut Vec<u8>, kind: u32, body: &[u8]) {
    let padded = body.len().next_multiple_of(4);
    let total = u32::try_from(padded + 12).unwrap_or(u32::MAX);
    file.extend(kind.to_le_bytes());
    file.extend(total.to_le_bytes());
    file.extend(body);
    file.resize(file.len() + padded - body.len(), 0);
    file.extend(total.to_le_bytes());
}

fn tag(packet: &mut Vec<u8>, tag: u16, value: &[u8]) {
    let padded = value.len().next_multiple_of(4);
    packet.extend(tag.to_be_bytes());
    packet.extend((padded as u16).to_be_bytes());
    packet.extend(value);
    packet.resize(packet.len() + padded - value.len(), 0);
}

fn exported(message: &Message) -> Vec<u8> {
    let mut packet = Vec::with_capacity(message.bytes.len() + 64);
    tag(&mut packet, DISSECTOR, b"sip");
    let ends: [SocketAddr; 2] = [message.source, message.destination];
    for (end, address) in ends.iter().enumerate() {
        match address.ip().to_canonical() {
            IpAddr::V4(ip) => tag(&mut packet, IPV4[end], &ip.octets()),
            IpAddr::V6(ip) => tag(&mut packet, IPV6[end], &ip.octets()),
        }
    }
    let kind = match message.transport {
        Transport::Udp => PORT_TYPE_UDP,
        Transport::Tcp | Transport::Tls => PORT_TYPE_TCP,
    };
    tag(&mut packet, PORT_TYPE, &kind.to_be_bytes());
    for (end, address) in ends.iter().enumerate() {
        tag(
            &mut packet,
            PORTS[end],
            &u32::from(address.port()).to_be_bytes(),
        );
    }
    tag(&mut packet, 0, &[]);
    packet.extend_from_slice(&message.bytes);
    packet
}
