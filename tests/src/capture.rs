//! What was on the wire: dumpcap records loopback, tshark reads it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::pcap::RtpPacket;
use crate::ports::RTP_PORTS;
use crate::process::{Process, eventually};

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    process: Process,
    file: PathBuf,
}

/// Whether captures can be made here.
#[must_use]
pub fn possible() -> bool {
    crate::is_root() && crate::installed("dumpcap") && crate::installed("tshark")
}

impl Capture {
    /// Records everything to and from an appliance's RTP ports.
    ///
    /// # Panics
    /// dumpcap does not start.
    #[must_use]
    pub fn start(folder: &Path, rtp_first: u16) -> Self {
        let file = folder.join("wire.pcapng");
        let log = folder.join("dumpcap.log");
        let filter = format!("udp portrange {rtp_first}-{}", rtp_first + RTP_PORTS - 1);
        let mut command = Command::new("dumpcap");
        command
            .args(["-i", "lo", "-f", &filter, "-B", "16", "-w"])
            .arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(std::fs::File::create(&log).expect("a log"));
        let process = Process::start("dumpcap", &mut command);
        eventually("dumpcap captures", Duration::from_secs(10), || {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            said.contains("File:").then_some(())
        });
        Self { process, file }
    }

    /// Ends the capture and reads its RTP.
    ///
    /// # Panics
    /// tshark cannot read it.
    #[must_use]
    pub fn finish(mut self) -> Wire {
        // The kernel hands over the last packets with a delay.
        std::thread::sleep(Duration::from_millis(500));
        self.process.signal(Signal::SIGINT);
        self.process.wait(Duration::from_secs(10));
        let mut command = Command::new("tshark");
        command.args(["-n", "-r"]).arg(&self.file);
        command.args([
            "-o",
            "rtp.heuristic_rtp:TRUE",
            "-Y",
            "rtp && !icmp",
            "-T",
            "fields",
        ]);
        for field in [
            "frame.time_epoch",
            "udp.srcport",
            "udp.dstport",
            "rtp.p_type",
            "rtp.seq",
            "rtp.timestamp",
            "rtp.ssrc",
            "rtp.payload",
        ] {
            command.args(["-e", field]);
        }
        let output = command.output().expect("tshark runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8_lossy(&output.stdout);
        Wire {
            packets: text.lines().filter_map(parse_line).collect(),
        }
    }
}

/// Captured RTP in order of time.
#[derive(Debug)]
pub struct Wire {
    /// The packets.
    pub packets: Vec<RtpPacket>,
}

impl Wire {
    /// What was sent to a port.
    #[must_use]
    pub fn to_port(&self, port: u16) -> Vec<RtpPacket> {
        let to = |packet: &&RtpPacket| packet.destination_port == port;
        self.packets.iter().filter(to).cloned().collect()
    }

    /// What was sent from a port.
    #[must_use]
    pub fn from_port(&self, port: u16) -> Vec<RtpPacket> {
        let from = |packet: &&RtpPacket| packet.source_port == port;
        self.packets.iter().filter(from).cloned().collect()
    }
}

fn parse_line(line: &str) -> Option<RtpPacket> {
    let fields: Vec<&str> = line.split('\t').collect();
    let [
        time,
        source,
        destination,
        payload_type,
        sequence,
        timestamp,
        ssrc,
        payload,
    ] = fields.try_into().ok()?;
    let seconds: f64 = time.parse().ok()?;
    let hex: String = payload.chars().filter(char::is_ascii_hexdigit).collect();
    let octets = (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16));
    Some(RtpPacket {
        time_us: (seconds * 1e6) as u64,
        source_port: source.parse().ok()?,
        destination_port: destination.parse().ok()?,
        payload_type: payload_type.parse().ok()?,
        sequence: sequence.parse().ok()?,
        timestamp: timestamp.parse().ok()?,
        ssrc: u32::from_str_radix(ssrc.trim_start_matches("0x"), 16).ok()?,
        payload: octets.collect::<Result<_, _>>().ok()?,
    })
}
