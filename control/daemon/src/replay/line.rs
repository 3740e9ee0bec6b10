//! One m-line of a replay: its socket, where it sends to, and what it has sent.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use trunkline_link::message::{ForkStream, LegUpdate, Side, leg_flags};
use trunkline_sn3::{Frame, FrameKind};

/// Ports are taken in pairs: so often another even one is tried.
const TRIES: usize = 64;
/// Length of an RTP header without sources and extension.
const HEADER_BYTES: usize = 12;
/// RTP version 2, nothing else.
const VERSION: u8 = 0x80;

/// See [`super`].
pub(super) struct Line {
    pub media: u8,
    pub side: Side,
    rtp: UdpSocket,
    /// Holds the port beside, so that nobody else is sent this recorder's reports.
    _rtcp: UdpSocket,
    aim: Option<LegUpdate>,
    packets: u64,
    payload_bytes: u64,
    withheld: u64,
}

impl Line {
    /// A line with an even port of the system's choice.
    pub fn bind(media: u8, side: Side, address: IpAddr) -> io::Result<Self> {
        let mut refused = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..TRIES {
            let rtp = UdpSocket::bind(SocketAddr::new(address, 0))?;
            let port = rtp.local_addr()?.port();
            let beside = match port % 2 {
                0 => UdpSocket::bind(SocketAddr::new(address, port + 1)),
                _ => continue,
            };
            match beside {
                Ok(rtcp) => {
                    rtp.set_nonblocking(true)?;
                    return Ok(Self {
                        media,
                        side,
                        rtp,
                        _rtcp: rtcp,
                        aim: None,
                        packets: 0,
                        payload_bytes: 0,
                        withheld: 0,
                    });
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Its RTP port.
    pub fn port(&self) -> io::Result<u16> {
        Ok(self.rtp.local_addr()?.port())
    }

    /// Where to it sends from now on, and what.
    pub fn aim(&mut self, update: LegUpdate) {
        self.aim = Some(update);
    }

    /// Whether a frame was said on it.
    pub fn carries(&self, frame: &Frame<'_>) -> bool {
        frame.side == self.side as u8 && frame.media == self.media
    }

    /// Sends a frame, or counts it as withheld.
    pub fn send(&mut self, frame: &Frame<'_>) {
        let packet = self.destination().and_then(|(to, aim)| {
            let packet = match frame.kind {
                FrameKind::Opaque => renumbered(&frame.payload, aim),
                _ => packet_of(frame, aim),
            };
            Some((to, packet?))
        });
        let sent = packet.is_some_and(|(to, packet)| self.rtp.send_to(&packet, to).is_ok());
        if sent {
            self.packets += 1;
            self.payload_bytes += frame.payload.len() as u64;
        } else {
            self.withheld += 1;
        }
    }

    fn destination(&self) -> Option<(SocketAddr, &LegUpdate)> {
        let aim = self.aim.as_ref()?;
        let may = aim.flags & leg_flags::MAY_SEND != 0;
        aim.rtp.filter(|_| may).map(|to| (to, aim))
    }

    /// What it has sent.
    pub fn counted(&self) -> ForkStream {
        ForkStream {
            media: self.media,
            side: self.side,
            packets: self.packets,
            payload_bytes: self.payload_bytes,
            withheld: self.withheld,
        }
    }
}

/// The payload type that a recorder knows ours by; `None` = it takes none such.
fn mapped(pt: u8, aim: &LegUpdate) -> Option<u8> {
    if aim.payloads.is_empty() {
        return Some(pt);
    }
    let known = aim.payloads.iter().find(|one| one.pt == pt)?;
    Some(known.to_pt)
}

/// The packet that a frame was.
fn packet_of(frame: &Frame<'_>, aim: &LegUpdate) -> Option<Vec<u8>> {
    let pt = mapped(frame.pt?, aim)?;
    let mut packet = Vec::with_capacity(HEADER_BYTES + frame.payload.len());
    packet.push(VERSION);
    packet.push(u8::from(frame.marker) << 7 | pt & 0x7f);
    packet.extend(frame.seq.to_be_bytes());
    packet.extend(frame.rtp_ts.to_be_bytes());
    packet.extend(frame.ssrc?.to_be_bytes());
    packet.extend(&*frame.payload);
    Some(packet)
}

/// A packet kept whole, with the recorder's payload type.
fn renumbered(packet: &[u8], aim: &LegUpdate) -> Option<Vec<u8>> {
    let is_rtp = packet.len() >= HEADER_BYTES && packet[0] & 0xc0 == VERSION;
    let pt = mapped(packet.get(1).filter(|_| is_rtp)? & 0x7f, aim)?;
    let mut packet = packet.to_vec();
    packet[1] = packet[1] & 0x80 | pt & 0x7f;
    Some(packet)
}
