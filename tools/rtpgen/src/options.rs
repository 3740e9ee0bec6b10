//! What rtpgen is asked to do.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

/// Who ends a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Hangup {
    /// The calling end.
    Caller,
    /// The answering end (needs both ends here).
    Callee,
    /// Caller and callee in turn.
    Alternate,
}

/// How long calls last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Lengths {
    /// All the same.
    #[default]
    Fixed,
    /// Evenly from half to one and a half times the length.
    Uniform,
    /// Exponential with the length as its mean, as telephone traffic is modelled; at most ten times.
    Exponential,
}

impl Lengths {
    /// The length of one call.
    #[must_use]
    pub fn draw(self, mean: Duration) -> Duration {
        let part = match self {
            Self::Fixed => 1.0,
            Self::Uniform => 0.5 + rand::random::<f64>(),
            Self::Exponential => (-(1.0 - rand::random::<f64>()).ln()).min(10.0),
        };
        mean.mul_f64(part)
    }
}

/// Calls to place.
#[derive(Debug, Clone)]
pub struct CallsOptions {
    /// Request-URI of every call; `{n}` stands for the call's number. The host must be an
    /// address; `;transport=tcp` is understood.
    pub to: String,
    /// Where the answering end listens; `None` = the far end is somebody else.
    pub listen: Option<SocketAddr>,
    /// Where the calling end sends SIP from; port 0 = any.
    pub local: SocketAddr,
    /// Address of both ends' RTP.
    pub media_address: IpAddr,
    /// Number of calls.
    pub calls: u32,
    /// Calls begun a second.
    pub rate: f64,
    /// Rate at the last call: it rises (or falls) evenly from `rate`; `None` = `rate`.
    pub rate_to: Option<f64>,
    /// Length of each call from its answer, or its mean.
    pub duration: Duration,
    /// How the lengths are spread.
    pub lengths: Lengths,
    /// What both ends say instead of tones (which are then not checked).
    pub sound: Option<std::sync::Arc<crate::tone::Tone>>,
    /// Every packet of the tones has a level of its own, so that a passage is found again at one place.
    pub marked: bool,
    /// How long the answering end rings.
    pub ring: Duration,
    /// How long a call may take to be answered before it is cancelled.
    pub answer_timeout: Duration,
    /// User part of the caller; the call's number follows.
    pub from_user: String,
    /// Who ends the calls.
    pub hangup: Hangup,
    /// Send RTCP sender reports.
    pub rtcp: bool,
    /// Number of the first tone, so that runs side by side can differ.
    pub first_tone: u32,
    /// Whether Ctrl-C is watched for: it ends all calls with BYE and reports all the same.
    pub watch_interrupt: bool,
}

impl Default for CallsOptions {
    fn default() -> Self {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            to: "sip:rtpgen@127.0.0.1:5060".to_owned(),
            listen: None,
            local: SocketAddr::new(local, 0),
            media_address: local,
            calls: 10,
            rate: 10.0,
            rate_to: None,
            duration: Duration::from_secs(5),
            lengths: Lengths::Fixed,
            sound: None,
            marked: false,
            ring: Duration::ZERO,
            answer_timeout: Duration::from_secs(30),
            from_user: "caller".to_owned(),
            hangup: Hangup::Caller,
            rtcp: false,
            first_tone: 0,
            watch_interrupt: true,
        }
    }
}

/// How packets get to the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Io {
    /// Packet sockets where they may be had (CAP_NET_RAW, IPv4, no loopback), else plain ones.
    #[default]
    Auto,
    /// Packet sockets, or an error.
    Packet,
    /// Plain UDP sockets.
    Socket,
}

/// The size and kind of payloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PayloadKind {
    /// PCMU, 160 bytes for 20 ms.
    #[default]
    G711,
    /// Sizes as of Opus speech near 32 kbit/s: 48 to 111 bytes, payload type 111, 48 kHz clock.
    /// The bytes are no Opus.
    Opus,
    /// So many bytes, payload type 0.
    Bytes(u16),
}

impl PayloadKind {
    /// The largest payload.
    #[must_use]
    pub fn bytes_max(self) -> usize {
        match self {
            Self::G711 => 160,
            Self::Opus => 111,
            Self::Bytes(bytes) => usize::from(bytes),
        }
    }

    /// The payload of one packet of a flow.
    #[must_use]
    pub fn bytes(self, ssrc: u32, packet: u64) -> usize {
        match self {
            Self::Opus => {
                let mixed = (u64::from(ssrc) ^ packet).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                48 + (mixed >> 58) as usize
            }
            Self::G711 | Self::Bytes(_) => self.bytes_max(),
        }
    }

    /// The RTP payload type.
    #[must_use]
    pub fn payload_type(self) -> u8 {
        match self {
            Self::Opus => 111,
            Self::G711 | Self::Bytes(_) => 0,
        }
    }

    /// The RTP clock.
    #[must_use]
    pub fn clock_hz(self) -> u32 {
        match self {
            Self::Opus => 48_000,
            Self::G711 | Self::Bytes(_) => 8_000,
        }
    }
}

/// Flows to send.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Destination of the first flow; the next ones go to every second port above it.
    pub to: SocketAddr,
    /// Local address.
    pub local: IpAddr,
    /// Number of flows.
    pub flows: u16,
    /// How long.
    pub duration: Duration,
    /// Send RTCP sender reports to the port above.
    pub rtcp: bool,
    /// Time between two packets of a flow.
    pub ptime_ms: u16,
    /// Packets a second over all flows; `None` = as `ptime_ms` and the number of flows say.
    pub rate: Option<f64>,
    /// What is sent.
    pub payload: PayloadKind,
    /// How it is sent.
    pub io: Io,
    /// Core to stay on.
    pub core: Option<usize>,
    /// Source port of the first flow, the next ones every second above it; `None` = any.
    pub source_port: Option<u16>,
    /// All flows from one source port.
    pub one_source: bool,
}

impl Default for StreamOptions {
    fn default() -> Self {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        Self {
            to: SocketAddr::new(local, 40_000),
            local,
            flows: 1,
            duration: Duration::from_secs(5),
            rtcp: false,
            ptime_ms: 20,
            rate: None,
            payload: PayloadKind::G711,
            io: Io::Auto,
            core: None,
            source_port: None,
            one_source: false,
        }
    }
}

/// Flows to receive.
#[derive(Debug, Clone)]
pub struct SinkOptions {
    /// Address of the first port; the next ones are every second port above it.
    pub listen: SocketAddr,
    /// Number of ports.
    pub flows: u16,
    /// How long; `None` = until Ctrl-C.
    pub duration: Option<Duration>,
    /// How it is received.
    pub io: Io,
    /// Interface index to receive on with a packet socket, for an address that is not ours; `None`
    /// = the one that has the address.
    pub interface: Option<u32>,
    /// Core to stay on.
    pub core: Option<usize>,
    /// RTP clock of what comes, for the jitter.
    pub clock_hz: u32,
}

impl Default for SinkOptions {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 40_000),
            flows: 1,
            duration: None,
            io: Io::Auto,
            interface: None,
            core: None,
            clock_hz: 8000,
        }
    }
}

/// As many sockets as the system lets us have.
pub(crate) fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Without it fewer flows and calls fit, and those that do not will say so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
