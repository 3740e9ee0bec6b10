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
    /// Length of each call from its answer.
    pub duration: Duration,
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
            duration: Duration::from_secs(5),
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
}
