//! From which addresses a side's media is accepted, and where media is sent to it.
//!
//! ```text
//!   source is ...                                             then
//!   the accepted one                                          accepted
//!   the advertised one                                        accepted, is the accepted one now
//!   another, the old one silent for 1 s, its SSRC and
//!     sequence go on                                          accepted, is the accepted one now
//!   another at the SDP's or signalling peer's address (any
//!     with nat), within 5 s of an offer or answer             on probation: the third packet in order
//!                                                             makes it the accepted one, unless the
//!                                                             accepted one speaks in between
//!   any other                                                 stranger
//! ```

use std::net::{IpAddr, SocketAddr};

use crate::endpoint::{canonical, canonical_ip, is_sendable, next_port};
use crate::probation::NO_PROBATION;
use crate::spec::LegSpec;

/// How long an offer or answer lets other sources be learnt.
pub(crate) const LEARN_NS: u64 = 5_000_000_000;
/// Silence after which a source may be replaced by one that continues it.
pub(crate) const SILENT_NS: u64 = 1_000_000_000;
/// Sources on probation at once on one port.
pub(crate) const CANDIDATES: usize = 2;

/// What is thought of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The accepted source.
    Accepted,
    /// Accepted, and not the source that was accepted before.
    Changed,
    /// Only a closer look at the packet can tell.
    Unknown,
}

/// The addresses of one side of an m-line. Fields are in the order of memory: what judges a packet of
/// the accepted source comes together, and last where packets are sent (see [`crate::flow::Leg`]).
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Latch {
    /// Where the side says it receives RTP.
    advertised: Option<SocketAddr>,
    /// The last address advertised, kept over c=0.0.0.0.
    advertised_before: Option<SocketAddr>,
    advertised_rtcp: Option<SocketAddr>,
    pub(crate) rtcp_source: Option<SocketAddr>,
    signalling: Option<IpAddr>,
    nat: bool,
    pub(crate) rtcp_mux: bool,
    pub(crate) rtcp_heard_ns: u64,
    /// The accepted RTP source.
    pub(crate) source: Option<SocketAddr>,
    /// Until when, once signalling has named another address.
    source_until_ns: u64,
    /// When the accepted source was last heard.
    pub(crate) heard_ns: u64,
    pub(crate) candidates: [u32; CANDIDATES],
    learn_until_ns: u64,
    /// Where RTP is sent.
    pub(crate) destination: Option<SocketAddr>,
}

impl Latch {
    /// Behind the last byte that judging looks at.
    pub(crate) const JUDGED_END: usize = std::mem::offset_of!(Self, learn_until_ns);

    /// Accepts nobody.
    pub(crate) fn new() -> Self {
        Self {
            advertised: None,
            advertised_before: None,
            advertised_rtcp: None,
            rtcp_source: None,
            signalling: None,
            nat: false,
            rtcp_mux: false,
            rtcp_heard_ns: 0,
            source: None,
            source_until_ns: u64::MAX,
            heard_ns: 0,
            candidates: [NO_PROBATION; CANDIDATES],
            learn_until_ns: 0,
            destination: None,
        }
    }

    /// Takes what signalling says.
    pub(crate) fn update(&mut self, now_ns: u64, spec: &LegSpec) {
        let advertised = spec.rtp.map(canonical).filter(is_sendable);
        self.rtcp_mux = spec.flags.rtcp_mux;
        self.nat = spec.flags.nat;
        self.signalling = spec.signalling.map(canonical_ip);
        self.advertised = advertised;
        let rtcp = spec.rtcp.map(canonical).filter(is_sendable);
        self.advertised_rtcp = rtcp.or_else(|| advertised.and_then(next_port));
        if spec.flags.learn {
            self.learn_until_ns = now_ns.saturating_add(LEARN_NS);
        }
        match advertised {
            None => self.destination = None,
            Some(address) if self.advertised_before == Some(address) => {
                self.destination = self.source.or(advertised);
            }
            Some(_) => {
                self.destination = advertised;
                self.advertised_before = advertised;
                // What was accepted until now may be on its way still, or come on if it may be
                // learnt again: a party may move its receiver alone.
                if self
                    .source
                    .is_some_and(|source| !self.is_known_host(source))
                {
                    self.source_until_ns = now_ns.saturating_add(LEARN_NS);
                }
                self.rtcp_source = self
                    .rtcp_source
                    .filter(|&source| Some(source) == self.advertised_rtcp);
            }
        }
        if let Some(restore) = &spec.restore {
            if let Some(learned) = restore.learned_rtp.map(canonical) {
                self.accept(now_ns, learned);
            }
            self.rtcp_source = restore.learned_rtcp.map(canonical).or(self.rtcp_source);
        }
    }

    /// First judgement of an RTP source. Marks an accepted one as heard.
    #[inline]
    pub(crate) fn judge(&mut self, now_ns: u64, source: SocketAddr) -> Verdict {
        if self.source == Some(source) && now_ns < self.source_until_ns {
            self.heard_ns = now_ns;
            return Verdict::Accepted;
        }
        if self.advertised == Some(source) {
            self.accept(now_ns, source);
            return Verdict::Changed;
        }
        Verdict::Unknown
    }

    /// Makes a source the accepted one.
    pub(crate) fn accept(&mut self, now_ns: u64, source: SocketAddr) {
        if self.source.is_some_and(|before| before.ip() != source.ip()) {
            self.rtcp_source = self
                .rtcp_source
                .filter(|&rtcp| Some(rtcp) == self.advertised_rtcp);
        }
        self.source = Some(source);
        self.source_until_ns = u64::MAX;
        self.heard_ns = now_ns;
        // On hold without an address there is nowhere to send to, whoever speaks.
        if self.advertised.is_some() || self.advertised_before.is_none() {
            self.destination = Some(source);
        }
    }

    /// Whether the accepted source has been silent for so long that another may continue it.
    pub(crate) fn is_silent(&self, now_ns: u64) -> bool {
        self.source.is_some()
            && now_ns < self.source_until_ns
            && now_ns.saturating_sub(self.heard_ns) >= SILENT_NS
    }

    /// Whether a source may be put on probation now.
    pub(crate) fn may_learn(&self, now_ns: u64, source: SocketAddr) -> bool {
        now_ns < self.learn_until_ns && self.is_known_host(source)
    }

    /// Whether a source is where the SDP or the signalling comes from, or that does not matter.
    fn is_known_host(&self, source: SocketAddr) -> bool {
        let address = Some(source.ip());
        self.nat
            || address == self.signalling
            || address == self.advertised.map(|advertised| advertised.ip())
    }

    /// End of the learning window.
    pub(crate) fn learn_until_ns(&self) -> u64 {
        self.learn_until_ns
    }

    /// Whether a source differs from what signalling says.
    pub(crate) fn is_advertised(&self, source: SocketAddr) -> bool {
        self.advertised == Some(source)
    }

    /// Where the side says that RTP comes from.
    pub(crate) fn advertised(&self) -> Option<SocketAddr> {
        self.advertised
    }

    /// Where the side says that RTCP comes from.
    pub(crate) fn advertised_rtcp(&self) -> Option<SocketAddr> {
        self.advertised_rtcp
    }

    /// Judgement of an RTCP source on the RTCP port; `valid` tells whether the datagram is RTCP.
    /// Marks an accepted one as heard.
    pub(crate) fn judge_rtcp(
        &mut self,
        now_ns: u64,
        source: SocketAddr,
        valid: impl FnOnce() -> bool,
    ) -> Option<Verdict> {
        if self.rtcp_source == Some(source) {
            self.rtcp_heard_ns = now_ns;
            return Some(Verdict::Accepted);
        }
        let learnt_host = self.source.is_some_and(|rtp| rtp.ip() == source.ip());
        let replaceable =
            self.rtcp_source.is_none() || now_ns.saturating_sub(self.rtcp_heard_ns) >= SILENT_NS;
        if self.advertised_rtcp == Some(source) || (learnt_host && replaceable && valid()) {
            self.rtcp_source = Some(source);
            self.rtcp_heard_ns = now_ns;
            return Some(Verdict::Changed);
        }
        None
    }

    /// Where RTP is sent.
    #[inline]
    pub(crate) fn destination(&self) -> Option<SocketAddr> {
        self.destination
    }

    /// Where RTCP is sent, and whether from the RTP port.
    pub(crate) fn rtcp_destination(&self) -> Option<(SocketAddr, bool)> {
        let destination = self.destination?;
        if self.rtcp_mux {
            return Some((destination, true));
        }
        let by_rule = if self.advertised == Some(destination) {
            self.advertised_rtcp
        } else {
            next_port(destination)
        };
        self.rtcp_source.or(by_rule).map(|address| (address, false))
    }
}
