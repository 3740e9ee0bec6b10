//! `sn3 import`: calls out of a pcap or pcapng, each as a call's SN3.

use crate::Outcome;
use crate::output::{Output, interrupted};
use anyhow::{Context, Result};
use std::borrow::Cow;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use trunkline_pcap::{Call, CaptureFile, Datagram, Media, Reassembler, find_calls, set_format};
use trunkline_sn3::export::ClassicWriter;
use trunkline_sn3::facts::{CallChange, CallClose, CallOpen, ParticipantFact, PayloadFact};
use trunkline_sn3::record::ClockTriple;
use trunkline_sn3::{Bytes, Frame, FrameKind};

/// Calls written in one pass over the file.
const CALLS_A_PASS: usize = 64;
/// Payload types of RTCP where RTP and RTCP share a port (RFC 5761 section 4).
const RTCP_TYPES: std::ops::RangeInclusive<u8> = 192..=223;

#[derive(clap::Args)]
#[command(after_help = "Examples:\n  sn3 import call.pcapng -o call.sn3\n  \
    sn3 import day.pcap -o calls/\n  \
    sn3 import rtp.pcap --caller 192.0.2.1:16384 --callee 16386 --rtpmap 96=opus/48000/2 -o call.sn3\n\n\
    SIP over UDP or TCP and its SDP are followed, over Ethernet, VLAN, Linux cooked captures and raw IP,\n\
    IPv4 and IPv6, fragments put together. Each dialog is a call: caller left, callee right.")]
pub(crate) struct Arguments {
    /// The pcap or pcapng.
    file: PathBuf,
    /// The SN3 to write (- for the standard output), or a directory for one file a call.
    #[arg(short, long, value_name = "OUT.sn3|DIR")]
    output: PathBuf,
    /// Which call, where there are several.
    #[arg(long, value_name = "CALL-ID")]
    call: Option<String>,
    /// Without SIP: where the caller sends its RTP from.
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = parse_end)]
    caller: Option<End>,
    /// Without SIP: where the callee sends its RTP from.
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = parse_end)]
    callee: Option<End>,
    /// Without SIP: what a payload type is.
    #[arg(long, value_name = "PT=NAME/CLOCK", value_parser = parse_rtpmap)]
    rtpmap: Vec<PayloadFact>,
    /// Print what was found as JSON (unless the SN3 goes to the standard output).
    #[arg(long)]
    json: bool,
}

/// An address and port, or a port on any address.
#[derive(Debug, Clone, Copy)]
struct End {
    address: Option<IpAddr>,
    port: u16,
}

impl End {
    fn is(&self, address: SocketAddr) -> bool {
        self.port == address.port() && self.address.is_none_or(|known| known == address.ip())
    }
}

fn parse_end(text: &str) -> Result<End, String> {
    if let Ok(port) = text.parse() {
        return Ok(End {
            address: None,
            port,
        });
    }
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "neither a port nor address:port".to_owned())?;
    Ok(End {
        address: Some(address.ip()),
        port: address.port(),
    })
}

fn parse_rtpmap(text: &str) -> Result<PayloadFact, String> {
    let (pt, format) = text.split_once('=').ok_or("PT=NAME/CLOCK is needed")?;
    let pt: u8 = pt.parse().map_err(|_| "not a payload type")?;
    if pt > 127 || format.is_empty() {
        return Err("not a payload type and format".to_owned());
    }
    let mut payload = PayloadFact {
        pt,
        ..PayloadFact::default()
    };
    set_format(&mut payload, format);
    Ok(payload)
}

/// Which call and side a datagram belongs to.
struct Endpoints {
    /// By endpoint: (valid from, call, side, m-line).
    rtp: HashMap<SocketAddr, Vec<(u64, usize, u8, u8)>>,
    rtcp: HashMap<SocketAddr, Vec<(u64, usize, u8, u8)>>,
    given: [Option<End>; 2],
}

/// A datagram's place.
#[derive(Debug, Clone, Copy)]
struct Place {
    call: usize,
    side: u8,
    media: u8,
    rtcp: bool,
}

impl Endpoints {
    fn new(calls: &[Call], given: [Option<End>; 2]) -> Self {
        let mut endpoints = Self {
            rtp: HashMap::new(),
            rtcp: HashMap::new(),
            given,
        };
        for (index, call) in calls.iter().enumerate() {
            for description in &call.descriptions {
                for media in &description.media {
                    let entry = (description.utc_ns, index, description.side, media.index);
                    endpoints.add(media, entry);
                }
            }
        }
        endpoints
    }

    fn add(&mut self, media: &Media, entry: (u64, usize, u8, u8)) {
        let Some(endpoint) = media.endpoint else {
            return;
        };
        self.rtp.entry(endpoint).or_default().push(entry);
        let beside = SocketAddr::new(endpoint.ip(), endpoint.port().wrapping_add(1));
        let rtcp = media.rtcp.unwrap_or(beside);
        self.rtcp.entry(rtcp).or_default().push(entry);
    }

    fn place(&self, datagram: &Datagram<'_>) -> Option<Place> {
        let version_2 = datagram.payload.first().is_some_and(|byte| byte >> 6 == 2);
        let second = *datagram.payload.get(1)?;
        if !version_2 {
            return None;
        }
        let rtcp = RTCP_TYPES.contains(&second);
        for (side, end) in self.given.iter().enumerate() {
            let Some(end) = end else { continue };
            let place = |side| Place {
                call: 0,
                side,
                media: 0,
                rtcp,
            };
            let beside = |address: SocketAddr| {
                let port = address.port().wrapping_sub(u16::from(rtcp));
                end.is(address) || (rtcp && end.is(SocketAddr::new(address.ip(), port)))
            };
            if beside(datagram.source) {
                return Some(place(side as u8));
            }
            if beside(datagram.destination) {
                return Some(place(1 - side as u8));
            }
        }
        let find = |address: &SocketAddr| {
            let known = self.rtp.get(address);
            let known = known.or_else(|| rtcp.then(|| self.rtcp.get(address)).flatten())?;
            let told = known.iter().rfind(|entry| entry.0 <= datagram.utc_ns);
            told.or(known.first()).copied()
        };
        let place = |(_, call, side, media): (u64, usize, u8, u8)| Place {
            call,
            side,
            media,
            rtcp,
        };
        // Where it goes to is what SDP says; where it comes from need not be.
        if let Some((from, call, side, media)) = find(&datagram.destination) {
            return Some(place((from, call, 1 - side, media)));
        }
        find(&datagram.source).map(place)
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<Outcome> {
    let name = arguments.file.display();
    let bytes = Bytes::open(&arguments.file).with_context(|| name.to_string())?;
    let mut calls = find_calls(&bytes)
        .with_context(|| format!("{name}: damaged at byte 0: neither a pcap nor a pcapng"))?;
    let given = [arguments.caller, arguments.callee];
    if given.iter().any(Option::is_some) {
        calls = vec![Call {
            call_id: "import".to_owned(),
            ..Call::default()
        }];
    }
    let endpoints = Endpoints::new(&calls, given);
    let found = count(&bytes, &endpoints, calls.len());
    let mut chosen: Vec<usize> = (0..calls.len())
        .filter(|&index| found[index].packets[0] + found[index].packets[1] > 0)
        .filter(|&index| {
            let wanted = arguments.call.as_ref();
            wanted.is_none_or(|wanted| *wanted == calls[index].call_id)
        })
        .collect();
    anyhow::ensure!(
        !chosen.is_empty(),
        "{name}: no call with audio found; without SIP name the RTP ports by --caller and --callee",
    );
    let directory = arguments.output.is_dir()
        || arguments
            .output
            .as_os_str()
            .to_string_lossy()
            .ends_with('/');
    if chosen.len() > 1 && !directory {
        eprintln!(
            "sn3: {name}: {} calls here, choose one with --call or name a directory:",
            chosen.len()
        );
        for &index in &chosen {
            let call = &calls[index];
            eprintln!("{}  {} -> {}", call.call_id, call.caller, call.callee);
        }
        return Ok(Outcome::WrongUsage);
    }
    if directory {
        std::fs::create_dir_all(&arguments.output)?;
    }
    chosen.sort_by_key(|&index| found[index].first_ns);
    let mut written = Vec::new();
    for pass in chosen.chunks(CALLS_A_PASS) {
        let mut writers = HashMap::new();
        for &index in pass {
            let path = output_path(arguments, directory, index, &calls[index]);
            let output = Output::create(&path, &arguments.file)?;
            let writer =
                CallWriter::begin(&calls[index], &found[index], &arguments.rtpmap, output)?;
            written.push((path, index));
            writers.insert(index, writer);
        }
        let mut reassembler = Reassembler::default();
        for record in CaptureFile::new(&bytes).into_iter().flatten() {
            anyhow::ensure!(!interrupted(), "cancelled");
            let Some(datagram) = reassembler.datagram(&record) else {
                continue;
            };
            if let Some(place) = endpoints.place(&datagram)
                && let Some(writer) = writers.get_mut(&place.call)
            {
                writer.take(&datagram, place)?;
            }
        }
        for (_, writer) in writers {
            writer.finish()?;
        }
    }
    if arguments.json && arguments.output.as_os_str() != "-" {
        let text = as_json(&written, &calls, &found);
        say!("{}", serde_json::to_string_pretty(&text)?);
    }
    Ok(damage(&bytes, &arguments.file))
}

fn output_path(arguments: &Arguments, directory: bool, index: usize, call: &Call) -> PathBuf {
    if !directory {
        return arguments.output.clone();
    }
    let plain: String = call
        .call_id
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "-_.".contains(c) {
                c
            } else {
                '_'
            }
        })
        .take(80)
        .collect();
    arguments
        .output
        .join(format!("{:04}-{plain}.sn3", index + 1))
}

/// What a call has in the file.
#[derive(Debug, Clone, Copy)]
struct Found {
    packets: [u64; 2],
    first_ns: u64,
    /// Of audio.
    first_audio_ns: u64,
}

fn count(bytes: &[u8], endpoints: &Endpoints, calls: usize) -> Vec<Found> {
    let nothing = Found {
        packets: [0; 2],
        first_ns: u64::MAX,
        first_audio_ns: u64::MAX,
    };
    let mut found = vec![nothing; calls];
    let mut reassembler = Reassembler::default();
    for record in CaptureFile::new(bytes).into_iter().flatten() {
        let Some(datagram) = reassembler.datagram(&record) else {
            continue;
        };
        let Some(place) = endpoints.place(&datagram) else {
            continue;
        };
        let known = &mut found[place.call];
        known.first_ns = known.first_ns.min(datagram.utc_ns);
        if !place.rtcp {
            known.packets[usize::from(place.side)] += 1;
            known.first_audio_ns = known.first_audio_ns.min(datagram.utc_ns);
        }
    }
    found
}

fn damage(bytes: &[u8], path: &Path) -> Outcome {
    let Some(mut file) = CaptureFile::new(bytes) else {
        return Outcome::Flawed;
    };
    file.by_ref().for_each(drop);
    if let Some((offset, count)) = file.shortened() {
        eprintln!(
            "sn3: {}: {count} frames were not captured whole (snap length), the first at byte {offset}",
            path.display()
        );
        if file.damage().is_none() {
            return Outcome::Flawed;
        }
    }
    match file.damage() {
        Some((offset, what)) => {
            eprintln!("sn3: {}: damaged at byte {offset}: {what}", path.display());
            Outcome::Flawed
        }
        None => Outcome::Fine,
    }
}

/// The SN3 of one call while it is written.
struct CallWriter<'c> {
    writer: ClassicWriter<Output>,
    call: &'c Call,
    origin_ns: u64,
    last_ns: u64,
    /// Descriptions already told.
    told: usize,
}

impl<'c> CallWriter<'c> {
    fn begin(
        call: &'c Call,
        found: &Found,
        rtpmap: &[PayloadFact],
        output: Output,
    ) -> Result<Self> {
        let origin_ns = match call.invited_ns {
            0 => found.first_ns,
            invited => invited.min(found.first_ns),
        };
        let rebase_ns = found.first_audio_ns.saturating_sub(origin_ns);
        let writer = ClassicWriter::new(output, 0, rebase_ns)?;
        let mut writer = Self {
            writer,
            call,
            origin_ns,
            last_ns: 0,
            told: 0,
        };
        // The origin stands for both clocks: a capture file has one only.
        let clock = ClockTriple {
            mono_ns: origin_ns,
            utc_ns: origin_ns,
            sync: 0,
        };
        writer.note(FrameKind::Clock, 0, clock.encode().to_vec())?;
        let begin_ns = call.answered_ns.unwrap_or(origin_ns).max(origin_ns);
        writer.told = call
            .descriptions
            .iter()
            .filter(|d| d.utc_ns <= begin_ns)
            .count();
        let mut legs = call.legs_at(begin_ns);
        if !rtpmap.is_empty() {
            legs = call_legs(rtpmap);
        }
        let participant = |role: &str, uri: &str, channel| ParticipantFact {
            role: role.to_owned(),
            uri: uri.to_owned(),
            channel,
            ..ParticipantFact::default()
        };
        let open = CallOpen {
            call_id: call.call_id.clone(),
            caller: call.caller.clone(),
            callee: call.callee.clone(),
            sip_call_ids: vec![call.call_id.clone()],
            call_started_at: rfc3339(origin_ns),
            started_at: rfc3339(origin_ns),
            answered_mono_ns: call.answered_ns.unwrap_or(0),
            answered_at: call.answered_ns.map_or(String::new(), rfc3339),
            participants: vec![
                participant("caller", &call.caller_uri, 0),
                participant("callee", &call.callee_uri, 1),
            ],
            legs,
            ..CallOpen::default()
        };
        writer.note(FrameKind::CallOpen, 0, serde_json::to_vec(&open)?)?;
        Ok(writer)
    }

    fn note(&mut self, kind: FrameKind, wall_ns: u64, payload: Vec<u8>) -> Result<()> {
        let frame = Frame {
            kind,
            side: 0,
            media: 0,
            ssrc: None,
            pt: None,
            marker: false,
            flags: 0,
            seq: 0,
            seq_cycles: 0,
            rtp_ts: 0,
            wall_ns,
            payload: Cow::Owned(payload),
            offset: 0,
        };
        Ok(self.writer.frame(&frame)?)
    }

    fn take(&mut self, datagram: &Datagram<'_>, place: Place) -> Result<()> {
        while let Some(description) = self.call.descriptions.get(self.told)
            && description.utc_ns <= datagram.utc_ns
        {
            self.told += 1;
            let change = CallChange {
                reason: "media".to_owned(),
                legs: self.call.legs_at(description.utc_ns),
                ..CallChange::default()
            };
            let wall_ns = description.utc_ns.saturating_sub(self.origin_ns);
            self.note(FrameKind::CallChange, wall_ns, serde_json::to_vec(&change)?)?;
        }
        let wall_ns = datagram.utc_ns.saturating_sub(self.origin_ns);
        self.last_ns = self.last_ns.max(wall_ns);
        let bytes = &datagram.payload;
        let mut frame = Frame {
            kind: FrameKind::Rtcp,
            side: place.side,
            media: place.media,
            ssrc: None,
            pt: None,
            marker: false,
            flags: 0,
            seq: 0,
            seq_cycles: 0,
            rtp_ts: 0,
            wall_ns,
            payload: Cow::Borrowed(&bytes[..]),
            offset: 0,
        };
        if !place.rtcp {
            // What is no RTP (STUN, DTLS, garbage) is no sound.
            let Ok(packet) = trunkline_rtp::RtpPacket::parse(bytes) else {
                return Ok(());
            };
            frame.kind = FrameKind::Rtp;
            frame.ssrc = Some(packet.ssrc());
            frame.pt = Some(packet.payload_type());
            frame.marker = packet.marker();
            frame.seq = packet.sequence();
            frame.rtp_ts = packet.timestamp();
            frame.payload = Cow::Borrowed(packet.payload());
        }
        Ok(self.writer.frame(&frame)?)
    }

    fn finish(mut self) -> Result<()> {
        if let Some(ended_ns) = self.call.ended_ns {
            let close = CallClose {
                ended_at: rfc3339(ended_ns),
                ended_mono_ns: ended_ns,
                ended_by: self.call.ended_by.to_owned(),
                ..CallClose::default()
            };
            let wall_ns = ended_ns.saturating_sub(self.origin_ns).max(self.last_ns);
            self.note(FrameKind::CallClose, wall_ns, serde_json::to_vec(&close)?)?;
        }
        let (output, _) = self.writer.into_parts()?;
        output.finish()
    }
}

/// Both sides send what was named by hand.
fn call_legs(rtpmap: &[PayloadFact]) -> Vec<trunkline_sn3::facts::LegFact> {
    [0, 1]
        .map(|side| trunkline_sn3::facts::LegFact {
            side,
            kind: "audio".to_owned(),
            payloads: rtpmap.to_vec(),
            ..Default::default()
        })
        .to_vec()
}

fn as_json(written: &[(PathBuf, usize)], calls: &[Call], found: &[Found]) -> serde_json::Value {
    let calls = written.iter().map(|(path, index)| {
        let (call, found) = (&calls[*index], &found[*index]);
        serde_json::json!({
            "output": path.display().to_string(),
            "call_id": call.call_id,
            "caller": call.caller,
            "callee": call.callee,
            "started_at": rfc3339(if call.invited_ns == 0 { found.first_ns } else { call.invited_ns }),
            "answered_at": call.answered_ns.map(rfc3339),
            "ended_at": call.ended_ns.map(rfc3339),
            "packets": { "caller": found.packets[0], "callee": found.packets[1] },
        })
    });
    serde_json::json!({ "calls": calls.collect::<Vec<_>>() })
}

/// RFC 3339 with milliseconds.
fn rfc3339(utc_ns: u64) -> String {
    let (seconds, ms) = (utc_ns / 1_000_000_000, utc_ns / 1_000_000 % 1_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Civil date of a day since 1970, years beginning in March.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let moon = (5 * of_year + 2) / 153;
    let day = of_year - (153 * moon + 2) / 5 + 1;
    let month = if moon < 10 { moon + 3 } else { moon - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}
