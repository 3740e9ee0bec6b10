//! `sn3 pcap`: the packets of a call with headers made up around them.
//!
//! The caller is 192.0.2.1, the callee 192.0.2.2; m-line `n` has RTP ports 16384 + 4n (caller)
//! and 16386 + 4n (callee), RTCP one above. A made-up INVITE and 200 with the call's own payload
//! types come first, so that tshark and Wireshark know what is RTP and which codec it has.

use crate::Outcome;
use crate::output::{Output, interrupted, spare_captures};
use crate::source::{Opened, Source, complain};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use trunkline_audio::{Options, Plan};
use trunkline_codec::telephone_event::EventReport;
use trunkline_codec::{CodecKind, Format};
use trunkline_sn3::facts::{LegFact, PayloadFact};
use trunkline_sn3::{Capture, Frame, FrameKind};

/// Times in ns (https://www.tcpdump.org/manpages/pcap-savefile.5.html).
const MAGIC_NS: u32 = 0xA1B2_3C4D;
/// Blocks of pcapng (draft-ietf-opsawg-pcapng).
const SECTION_HEADER: u32 = 0x0A0D_0D0A;
const BYTE_ORDER: u32 = 0x1A2B_3C4D;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Packets begin with the IP header.
const LINKTYPE_RAW: u32 = 101;
const ADDRESSES: [[u8; 4]; 2] = [[192, 0, 2, 1], [192, 0, 2, 2]];
const SIP_PORT: u16 = 5_060;
const FIRST_PORT: u16 = 16_384;
const UDP: u8 = 17;
/// Payload type given to telephone events that came without one.
const EVENT_TYPE: u8 = 101;
const DYNAMIC_TYPE: u8 = 96;

#[derive(clap::Args)]
#[command(
    after_help = "Example: sn3 pcap call.sn3 -o call.pcapng && tshark -r call.pcapng -Y rtp\n\n\
    A name that ends in .pcap gives the older format, any other a pcapng.\n\
    Addresses are made up: the caller is 192.0.2.1, the callee 192.0.2.2."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// The pcapng (or .pcap) to write; - for the standard output.
    #[arg(short, long, value_name = "OUT.pcapng")]
    output: PathBuf,
    /// The codec of a capture that does not name it.
    #[arg(long, value_name = "NAME", value_parser = crate::wav::parse_codec)]
    codec: Option<Format>,
    /// Print what was written as JSON (unless the packets go to the standard output).
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let capture = match arguments.source.open()? {
        Opened::Capture(capture) => capture,
        Opened::Listed(outcome) => return Ok(outcome),
    };
    let file = &arguments.source.file;
    let damaged = complain(&capture, file);
    spare_captures(&arguments.output)?;
    let session = Session::of(&capture, arguments.codec)?;
    let mut pcap = Pcap {
        output: Output::create(&arguments.output, file)?,
        packet: Vec::new(),
        id: 0,
        classic: is_classic(&arguments.output),
        packets: 0,
    };
    let write = |pcap: &mut Pcap| -> Result<()> {
        pcap.header()?;
        for (side, text) in session.signalling().iter().enumerate() {
            pcap.udp(session.utc_ns(0), side, [SIP_PORT; 2], text.as_bytes())?;
        }
        let mut datagram = Vec::new();
        for frame in capture.frames() {
            anyhow::ensure!(!interrupted(), "cancelled");
            if let Some(ports) = session.datagram(&frame, &mut datagram) {
                let side = usize::from(frame.side & 1);
                pcap.udp(session.utc_ns(frame.wall_ns), side, ports, &datagram)?;
            }
        }
        Ok(())
    };
    write(&mut pcap).with_context(|| arguments.output.display().to_string())?;
    let (packets, classic) = (pcap.packets, pcap.classic);
    pcap.output.finish()?;
    if arguments.json && arguments.output.as_os_str() != "-" {
        let text = serde_json::json!({
            "output": arguments.output.display().to_string(),
            "format": if classic { "pcap" } else { "pcapng" },
            "packets": packets,
            "damaged": damaged,
        });
        say!("{}", serde_json::to_string_pretty(&text)?);
    }
    Ok(if damaged {
        Outcome::Flawed
    } else {
        Outcome::Fine
    })
}

/// What is made up around the packets.
struct Session {
    origin_utc_ns: u64,
    caller: String,
    callee: String,
    call_id: String,
    /// m-lines: payload types of each side.
    media: BTreeMap<u8, [Vec<PayloadFact>; 2]>,
    /// Payload types of the sides where the capture has none.
    assumed: [u8; 2],
}

impl Session {
    fn of(capture: &Capture, codec: Option<Format>) -> Result<Self> {
        let facts = capture.facts();
        let open = facts.open.clone().unwrap_or_default();
        let origin_utc_ns = facts
            .clock
            .map_or(0, |(wall_ns, clock)| clock.utc_ns.saturating_sub(wall_ns));
        let name = |user: &str, other: &str| {
            let plain: String = user
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || "+-_.".contains(*c))
                .collect();
            if plain.is_empty() {
                other.to_owned()
            } else {
                plain
            }
        };
        let mut session = Self {
            origin_utc_ns,
            caller: name(&open.caller, "caller"),
            callee: name(&open.callee, "callee"),
            call_id: name(&open.call_id, "call"),
            media: BTreeMap::new(),
            assumed: [0; 2],
        };
        let changes = facts.changes.iter().flat_map(|(_, change)| &change.legs);
        for leg in open
            .legs
            .iter()
            .chain(changes)
            .filter(|leg| leg.kind == "audio")
        {
            session.learn(leg);
        }
        if session.media.is_empty() {
            session.assume(capture, codec)?;
        }
        Ok(session)
    }

    fn learn(&mut self, leg: &LegFact) {
        let known = &mut self.media.entry(leg.media).or_default()[usize::from(leg.side & 1)];
        for payload in &leg.payloads {
            if !known.iter().any(|other| other.pt == payload.pt) {
                known.push(payload.clone());
            }
        }
    }

    fn assume(&mut self, capture: &Capture, codec: Option<Format>) -> Result<()> {
        let plan = Plan::new(
            capture,
            &Options {
                codec,
                any_length: true,
                ..Options::default()
            },
        )?;
        let sides = self.media.entry(0).or_default();
        for (side, known) in sides.iter_mut().enumerate() {
            let streams = plan
                .streams()
                .iter()
                .filter(|s| usize::from(s.side) == side);
            let sound = streams
                .flat_map(|stream| &stream.codecs)
                .filter_map(|seen| Some((CodecKind::from_name(&seen.codec)?, seen.clock_hz)))
                .find(|(kind, _)| kind.is_sound());
            let (kind, clock_hz) = sound.unwrap_or((CodecKind::Pcmu, 8_000));
            let statically = (0..DYNAMIC_TYPE).find(|&pt| {
                CodecKind::from_static_payload_type(pt)
                    .is_some_and(|f| f.kind == kind && f.clock_hz == clock_hz && f.channels == 1)
            });
            let pt = statically.unwrap_or(DYNAMIC_TYPE);
            self.assumed[side] = pt;
            let channels = Format::usual(kind).channels;
            let entry = |pt, codec: &str, clock_hz, channels| PayloadFact {
                pt,
                codec: codec.to_owned(),
                clock_hz,
                channels,
                fmtp: String::new(),
            };
            known.push(entry(pt, kind.name(), clock_hz, channels));
            known.push(entry(EVENT_TYPE, "telephone-event", 8_000, 1));
        }
        Ok(())
    }

    fn utc_ns(&self, wall_ns: u64) -> u64 {
        self.origin_utc_ns.saturating_add(wall_ns)
    }

    /// RTP ports of an m-line: (the side's own, the other's).
    fn ports(media: u8, side: u8) -> [u16; 2] {
        let base = FIRST_PORT + 4 * u16::from(media);
        if side & 1 == 0 {
            [base, base + 2]
        } else {
            [base + 2, base]
        }
    }

    /// Puts together the datagram of a frame; its source and destination ports, or `None` for
    /// frames that are no packets.
    fn datagram(&self, frame: &Frame<'_>, datagram: &mut Vec<u8>) -> Option<[u16; 2]> {
        let ports = Self::ports(frame.media, frame.side);
        datagram.clear();
        match frame.kind {
            FrameKind::Rtp => {
                let side = frame.side & 1;
                let pt = frame.pt.unwrap_or_else(|| {
                    let event = EventReport::resembles(&frame.payload);
                    if event {
                        EVENT_TYPE
                    } else {
                        self.assumed[usize::from(side)]
                    }
                });
                datagram.extend([0x80, u8::from(frame.marker) << 7 | (pt & 0x7F)]);
                datagram.extend(frame.seq.to_be_bytes());
                datagram.extend(frame.rtp_ts.to_be_bytes());
                datagram.extend(frame.ssrc.unwrap_or(u32::from(side) + 1).to_be_bytes());
            }
            FrameKind::Opaque => {}
            FrameKind::Rtcp => {
                datagram.extend_from_slice(&frame.payload);
                return Some(ports.map(|port| port + 1));
            }
            _ => return None,
        }
        datagram.extend_from_slice(&frame.payload);
        Some(ports)
    }

    /// The made-up INVITE and its 200.
    fn signalling(&self) -> [String; 2] {
        let head = |first_line: String, sdp: &str| {
            format!(
                "{first_line}\r\n\
                 Via: SIP/2.0/UDP 192.0.2.1:5060;branch=z9hG4bKsn3\r\n\
                 From: <sip:{}@192.0.2.1>;tag=1\r\n\
                 To: <sip:{}@192.0.2.2>{}\r\n\
                 Call-ID: {}\r\nCSeq: 1 INVITE\r\nMax-Forwards: 70\r\n\
                 Content-Type: application/sdp\r\nContent-Length: {}\r\n\r\n{sdp}",
                self.caller,
                self.callee,
                if first_line.starts_with("SIP") {
                    ";tag=2"
                } else {
                    ""
                },
                self.call_id,
                sdp.len(),
            )
        };
        let invite = format!("INVITE sip:{}@192.0.2.2 SIP/2.0", self.callee);
        [
            head(invite, &self.sdp(0)),
            head("SIP/2.0 200 OK".to_owned(), &self.sdp(1)),
        ]
    }

    fn sdp(&self, side: u8) -> String {
        let address = format!("192.0.2.{}", side + 1);
        let mut sdp =
            format!("v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n");
        let last = self.media.keys().next_back().copied().unwrap_or(0);
        for index in 0..=last {
            let Some(sides) = self.media.get(&index) else {
                sdp += "m=application 0 udp 0\r\n";
                continue;
            };
            // RTP is sent with the receiver's numbers, but what was captured has the sender's:
            // each side is told both.
            let own = &sides[usize::from(side)];
            let foreign = sides[usize::from(1 - side)]
                .iter()
                .filter(|payload| !own.iter().any(|known| known.pt == payload.pt));
            let all: Vec<&PayloadFact> = own.iter().chain(foreign).collect();
            sdp += &format!("m=audio {} RTP/AVP", Self::ports(index, side)[0]);
            sdp.extend(all.iter().map(|payload| format!(" {}", payload.pt)));
            sdp += "\r\n";
            for payload in all {
                sdp += &format!(
                    "a=rtpmap:{} {}/{}",
                    payload.pt, payload.codec, payload.clock_hz
                );
                if payload.channels > 1 {
                    sdp += &format!("/{}", payload.channels);
                }
                sdp += "\r\n";
                if !payload.fmtp.is_empty() && !payload.fmtp.contains(['\r', '\n']) {
                    sdp += &format!("a=fmtp:{} {}\r\n", payload.pt, payload.fmtp);
                }
            }
        }
        sdp
    }
}

struct Pcap {
    output: Output,
    packet: Vec<u8>,
    id: u16,
    /// pcap rather than pcapng.
    classic: bool,
    packets: u64,
}

/// A name that ends in `.pcap` or `.cap` asks for the older format.
fn is_classic(path: &std::path::Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "pcap" || extension == "cap")
}

impl Pcap {
    fn header(&mut self) -> std::io::Result<()> {
        if !self.classic {
            return self.sections();
        }
        let mut header = Vec::with_capacity(24);
        header.extend(MAGIC_NS.to_le_bytes());
        header.extend(2_u16.to_le_bytes());
        header.extend(4_u16.to_le_bytes());
        header.extend([0; 8]);
        header.extend(u32::from(u16::MAX).to_le_bytes());
        header.extend(LINKTYPE_RAW.to_le_bytes());
        self.output.write_all(&header)
    }

    /// Section header and interface of a pcapng, times in ns.
    fn sections(&mut self) -> std::io::Result<()> {
        let mut bytes = Vec::with_capacity(64);
        bytes.extend(SECTION_HEADER.to_le_bytes());
        bytes.extend(28_u32.to_le_bytes());
        bytes.extend(BYTE_ORDER.to_le_bytes());
        bytes.extend([1, 0, 0, 0]);
        bytes.extend(u64::MAX.to_le_bytes());
        bytes.extend(28_u32.to_le_bytes());
        bytes.extend(INTERFACE.to_le_bytes());
        bytes.extend(32_u32.to_le_bytes());
        bytes.extend((LINKTYPE_RAW as u16).to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(0_u32.to_le_bytes());
        // Option if_tsresol: ten to the minus nine; then the end of options.
        bytes.extend([9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
        bytes.extend(32_u32.to_le_bytes());
        self.output.write_all(&bytes)
    }

    /// Writes the packet as a pcapng block.
    fn block(&mut self, utc_ns: u64) -> std::io::Result<()> {
        let length = self.packet.len() as u32;
        let padded = length.next_multiple_of(4);
        let total = padded + 32;
        let mut head = Vec::with_capacity(28);
        head.extend(ENHANCED_PACKET.to_le_bytes());
        head.extend(total.to_le_bytes());
        head.extend(0_u32.to_le_bytes());
        head.extend(((utc_ns >> 32) as u32).to_le_bytes());
        head.extend((utc_ns as u32).to_le_bytes());
        head.extend(length.to_le_bytes());
        head.extend(length.to_le_bytes());
        self.output.write_all(&head)?;
        self.packet.resize(padded as usize, 0);
        self.output.write_all(&self.packet)?;
        self.output.write_all(&total.to_le_bytes())
    }

    /// Writes a datagram from `side` to the other side; ports are (source, destination).
    fn udp(
        &mut self,
        utc_ns: u64,
        side: usize,
        ports: [u16; 2],
        payload: &[u8],
    ) -> std::io::Result<()> {
        let payload = &payload[..payload.len().min(usize::from(u16::MAX) - 28)];
        let udp_length = payload.len() as u16 + 8;
        let (source, destination) = (ADDRESSES[side], ADDRESSES[1 - side]);
        self.id = self.id.wrapping_add(1);
        self.packet.clear();
        self.packet.extend([0x45, 0]);
        self.packet.extend((udp_length + 20).to_be_bytes());
        self.packet.extend(self.id.to_be_bytes());
        self.packet.extend([0, 0, 64, UDP, 0, 0]);
        self.packet.extend(source);
        self.packet.extend(destination);
        let checksum = checksum(0, &self.packet);
        self.packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        let udp = self.packet.len();
        self.packet.extend(ports[0].to_be_bytes());
        self.packet.extend(ports[1].to_be_bytes());
        self.packet.extend(udp_length.to_be_bytes());
        self.packet.extend([0, 0]);
        self.packet.extend_from_slice(payload);
        let pseudo = [&source[..], &destination].concat();
        let pseudo_sum = sum(u32::from(UDP) + u32::from(udp_length), &pseudo);
        // 0 would mean "no checksum" (RFC 768).
        let udp_checksum = match self::checksum(pseudo_sum, &self.packet[udp..]) {
            0 => 0xFFFF,
            other => other,
        };
        self.packet[udp + 6..udp + 8].copy_from_slice(&udp_checksum.to_be_bytes());
        self.packets += 1;
        if !self.classic {
            return self.block(utc_ns);
        }
        let length = self.packet.len() as u32;
        let mut record = [0; 16];
        let seconds = u32::try_from(utc_ns / 1_000_000_000).unwrap_or(u32::MAX);
        record[..4].copy_from_slice(&seconds.to_le_bytes());
        record[4..8].copy_from_slice(&((utc_ns % 1_000_000_000) as u32).to_le_bytes());
        record[8..12].copy_from_slice(&length.to_le_bytes());
        record[12..].copy_from_slice(&length.to_le_bytes());
        self.output.write_all(&record)?;
        self.output.write_all(&self.packet)
    }
}

fn sum(start: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(start, |sum, pair| {
        let low = pair.get(1).copied().unwrap_or(0);
        sum + u32::from(u16::from_be_bytes([pair[0], low]))
    })
}

/// The Internet checksum (RFC 1071).
fn checksum(start: u32, bytes: &[u8]) -> u16 {
    let mut sum = sum(start, bytes);
    while sum > 0xFFFF {
        sum = (sum & 0xFFFF) + (sum >> 16);
    }
    !(sum as u16)
}
