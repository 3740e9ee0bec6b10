//! The configuration as the processes use it: typed, resolved, with the documented defaults.

use crate::{ConfigErrors, Retention, Route, Sink};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where segments, catalog and sockets live. A relative path is relative to the working directory.
    pub data_dir: PathBuf,
    /// How long live calls may go on after SIGTERM before they get a BYE, in seconds.
    pub drain_timeout_s: u32,
    /// `[dataplane]` without its interface shorthand.
    pub dataplane: Dataplane,
    /// All media interfaces. The position in this list is the interface index on the link.
    pub interfaces: Vec<Interface>,
    /// `[control]`.
    pub control: Control,
    /// `[sip]`.
    pub sip: Sip,
    /// `[[recorder]]`, in file order.
    pub recorders: Vec<Arc<crate::Recorder>>,
    /// `[[route]]`, in file order: the first that matches wins. Shared by all calls that took it.
    pub routes: Vec<Arc<Route>>,
    /// `[recording]`.
    pub recording: Recording,
    /// `[cdr]`.
    pub cdr: Cdr,
    /// `[[sink]]`.
    pub sinks: Vec<Sink>,
    /// `[[retention]]`, in file order: the first that fits wins.
    pub retention: Vec<Retention>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("trunkline-data"),
            drain_timeout_s: 5,
            dataplane: Dataplane::default(),
            interfaces: vec![Interface::default()],
            control: Control::default(),
            sip: Sip::default(),
            recorders: Vec::new(),
            routes: Vec::new(),
            recording: Recording::default(),
            cdr: Cdr::default(),
            sinks: Vec::new(),
            retention: Vec::new(),
        }
    }
}

impl Config {
    /// Reads and judges a file.
    ///
    /// # Errors
    /// All errors of the file, or the one that kept it from being read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        crate::parse::load(path)
    }

    /// Judges a text; `name` stands for the file in errors.
    ///
    /// # Errors
    /// All errors of the text.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigErrors> {
        crate::parse::parse(text, name)
    }

    /// Judges the files that it names and that are read only when they are needed: announcements.
    ///
    /// # Errors
    /// All that are wrong.
    pub fn check_files(&self) -> Result<(), ConfigErrors> {
        let indications = self
            .routes
            .iter()
            .filter_map(|route| route.indication.as_ref());
        let errors: Vec<_> = indications.filter_map(|one| one.complaint()).collect();
        match errors.is_empty() {
            true => Ok(()),
            false => Err(ConfigErrors(errors)),
        }
    }

    /// The Unix socket on which the dataplane waits for control.
    #[must_use]
    pub fn dataplane_socket(&self) -> PathBuf {
        self.data_dir.join("run/dataplane.sock")
    }

    /// The directory of the segment files.
    #[must_use]
    pub fn segments_dir(&self) -> PathBuf {
        self.data_dir.join("segments")
    }

    /// The catalog's file.
    #[must_use]
    pub fn catalog_file(&self) -> PathBuf {
        self.data_dir.join("catalog.sqlite")
    }

    /// The directory of the call detail records.
    #[must_use]
    pub fn cdr_dir(&self) -> PathBuf {
        self.data_dir.join("cdr")
    }

    /// Index of the first interface of the peer's address family; with `name`, of that name only.
    #[must_use]
    pub fn interface_for(&self, name: Option<&str>, peer: IpAddr) -> Option<usize> {
        self.interfaces.iter().position(|interface| {
            name.is_none_or(|name| interface.name == name)
                && interface.address.is_ipv4() == peer.to_canonical().is_ipv4()
        })
    }

    /// Calls with one audio line that all port ranges together have room for.
    #[must_use]
    pub fn calls_fitting_ports(&self) -> u32 {
        self.interfaces
            .iter()
            .map(|interface| interface.ports.pairs())
            .sum::<u32>()
            / 2
    }
}

/// `[dataplane]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dataplane {
    /// How packets are read and sent.
    pub backend: Backend,
    /// Which workers there are.
    pub cores: Cores,
    /// What a worker does when there is nothing to do.
    pub idle: Idle,
}

/// Packet I/O of the workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backend {
    /// io_uring; falls back to [`Backend::Mmsg`] where the kernel refuses it.
    #[default]
    Uring,
    /// recvmmsg and sendmmsg.
    Mmsg,
}

impl Backend {
    /// The name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "uring",
            Self::Mmsg => "mmsg",
        }
    }
}

/// Workers and their cores.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cores {
    /// The dataplane chooses.
    #[default]
    Auto,
    /// One pinned worker for each core number.
    Pinned(Vec<u16>),
}

/// Behaviour of an idle worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Idle {
    /// Sleep in the kernel.
    #[default]
    Park,
    /// Poll.
    Spin,
}

/// One address on which media ports are opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name; two entries of one name are the two families of a dual-stack interface.
    pub name: String,
    /// Address that sockets are bound to.
    pub address: IpAddr,
    /// Address written into SDP instead of `address`.
    pub advertise: Option<IpAddr>,
    /// Ports for RTP (even) and RTCP (the next one).
    pub ports: PortRange,
}

impl Default for Interface {
    fn default() -> Self {
        Self {
            name: "default".to_owned(),
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            advertise: None,
            ports: PortRange {
                first: 16384,
                last: 32767,
            },
        }
    }
}

impl Interface {
    /// The address that peers are told.
    #[must_use]
    pub fn advertised(&self) -> IpAddr {
        self.advertise.unwrap_or(self.address)
    }
}

/// An inclusive range of ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

impl PortRange {
    /// The (even, odd) port pairs that lie wholly inside.
    #[must_use]
    pub fn pairs(&self) -> u32 {
        let first_even = u32::from(self.first).next_multiple_of(2);
        (u32::from(self.last) + 1).saturating_sub(first_even) / 2
    }

    /// Whether the port lies inside.
    #[must_use]
    pub const fn contains(&self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl std::fmt::Display for PortRange {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}-{}", self.first, self.last)
    }
}

/// `[control]`.
#[derive(Clone, PartialEq, Eq)]
pub struct Control {
    /// Where the HTTP API listens.
    pub http: SocketAddr,
    /// Bearer token that requests must carry, from `token` or the contents of `token_file`.
    pub token: Option<String>,
}

impl Default for Control {
    fn default() -> Self {
        Self {
            http: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080),
            token: None,
        }
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let token = self.token.as_ref().map(|_| "(set)");
        formatter
            .debug_struct("Control")
            .field("http", &self.http)
            .field("token", &token)
            .finish()
    }
}

/// A SIP transport.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// UDP.
    Udp,
    /// TCP.
    Tcp,
}

impl Transport {
    /// The name in the configuration and, in capitals, in a Via.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// One SIP listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// Transport.
    pub transport: Transport,
    /// Local address.
    pub address: SocketAddr,
}

impl std::fmt::Display for Listen {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}", self.transport.name(), self.address)
    }
}

/// `[sip]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sip {
    /// Listeners.
    pub listen: Vec<Listen>,
    /// Sources that requests are accepted from; empty = nobody.
    pub allow: Vec<IpNet>,
    /// Learn RTP sources that differ from SDP and signalling.
    pub nat: bool,
    /// Most calls at once; `None` = what fits.
    pub calls_max: Option<u32>,
    /// Most new calls a second; `None` = no limit.
    pub calls_per_second_max: Option<u32>,
    /// User parts and URNs that bypass caps and shedding.
    pub emergency: Vec<String>,
    /// Most calls at once from one source address; `None` = no limit.
    pub source_calls_max: Option<u32>,
    /// Most new calls a second from one source address; `None` = no limit.
    pub source_calls_per_second_max: Option<u32>,
    /// A source with so many senseless requests within `ban_window_s` is ignored for `ban_s`; `None` =
    /// nobody is.
    pub ban_after: Option<u32>,
    /// See `ban_after`, seconds.
    pub ban_window_s: u32,
    /// See `ban_after`, seconds.
    pub ban_s: u32,
    /// Name servers that are asked for SIP host names; empty = the system's.
    pub nameservers: Vec<SocketAddr>,
}

impl Default for Sip {
    fn default() -> Self {
        let local = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5060);
        Self {
            listen: vec![
                Listen {
                    transport: Transport::Udp,
                    address: local,
                },
                Listen {
                    transport: Transport::Tcp,
                    address: local,
                },
            ],
            allow: ["127.0.0.0/8", "::1/128"]
                .iter()
                .filter_map(|net| net.parse().ok())
                .collect(),
            nat: false,
            calls_max: None,
            calls_per_second_max: None,
            emergency: ["112", "911", "urn:service:sos"]
                .map(str::to_owned)
                .to_vec(),
            source_calls_max: None,
            source_calls_per_second_max: None,
            ban_after: None,
            ban_window_s: 60,
            ban_s: 600,
            nameservers: Vec::new(),
        }
    }
}

impl Sip {
    /// Whether a request from this source is accepted. An IPv4 source seen through an IPv6 socket
    /// counts as IPv4.
    #[must_use]
    pub fn allows(&self, source: IpAddr) -> bool {
        let source = source.to_canonical();
        self.allow.iter().any(|net| net.contains(&source))
    }

    /// Whether a request for this target (a user part, or a whole urn: URI) is an emergency call.
    /// A URN matches its sub-services too (RFC 5031: `urn:service:sos.fire`).
    #[must_use]
    pub fn is_emergency(&self, target: &str) -> bool {
        let target = crate::normalize_user(target);
        self.emergency.iter().any(|entry| {
            if !entry.to_ascii_lowercase().starts_with("urn:") {
                return target == *entry;
            }
            match target.get(..entry.len()) {
                Some(head) if head.eq_ignore_ascii_case(entry) => {
                    matches!(target.as_bytes().get(entry.len()), None | Some(b'.'))
                }
                _ => false,
            }
        })
    }
}

/// How captured extents reach the disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Writer {
    /// Extents in memory, sealed and written by the recorder past the page cache.
    #[default]
    Extent,
    /// The same extents, stored by the recorder into a mapping of the segment file.
    Mmap,
}

/// What is recorded of keys that are pressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dtmf {
    /// Everything.
    #[default]
    Keep,
    /// That one was pressed and when, not which (telephone-events and SIP INFO; not tones in the audio).
    Mask,
}

/// `[recording]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Writer.
    pub writer: Writer,
    /// Size of a segment file in bytes, a multiple of 4096.
    pub segment_bytes: u64,
    /// Whether media before the answer is captured.
    pub early_media: bool,
    /// Whether a recording's extents are chained by hash, so that any later change shows.
    pub hash_chain: bool,
    /// Days after which an ended recording is deleted.
    pub keep_days: Option<u32>,
    /// Bytes of all recordings above which the oldest are deleted.
    pub quota_bytes: Option<u64>,
    /// Keys that are pressed.
    pub dtmf: Dtmf,
    /// Master keys, one a line, 64 hexadecimal digits, the one in use first: recordings are encrypted.
    pub key_file: Option<std::path::PathBuf>,
    /// Ed25519 private key (PKCS#8 PEM) that signs receipts, evidence and audits.
    pub signing_key_file: Option<std::path::PathBuf>,
}

impl Default for Recording {
    fn default() -> Self {
        Self {
            writer: Writer::Extent,
            segment_bytes: 256 << 20,
            early_media: false,
            hash_chain: true,
            keep_days: None,
            quota_bytes: None,
            dtmf: Dtmf::Keep,
            key_file: None,
            signing_key_file: None,
        }
    }
}

/// `[cdr]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cdr {
    /// The node's name in every record; `None` = the host's.
    pub node: Option<String>,
    /// An answered leg gets a record this often while it lasts; 0 = only when it ends.
    pub interim_minutes: u32,
    /// The file is put aside once it is larger than this.
    pub rotate_bytes: u64,
    /// The file is put aside once it is older than this; 0 = by its size only.
    pub rotate_hours: u32,
}

impl Default for Cdr {
    fn default() -> Self {
        Self {
            node: None,
            interim_minutes: 15,
            rotate_bytes: 64 << 20,
            rotate_hours: 24,
        }
    }
}
