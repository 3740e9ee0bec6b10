//! Totals of one engine.

/// Totals since the engine began. Every datagram given to the engine is counted in exactly one of
/// `rtp_in`, `rtcp_in`, `opaque_in`, `fork_in`, `strangers`, `malformed`, `rate_capped`, `truncated`, `no_flow`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// RTP packets from accepted sources.
    pub rtp_in: u64,
    /// Their bytes.
    pub rtp_bytes_in: u64,
    /// RTP packets relayed.
    pub rtp_out: u64,
    /// Their bytes.
    pub rtp_bytes_out: u64,
    /// RTCP packets from accepted sources.
    pub rtcp_in: u64,
    /// RTCP packets relayed.
    pub rtcp_out: u64,
    /// Opaque datagrams from accepted sources (udptl, and what is not RTP on a blind m-line).
    pub opaque_in: u64,
    /// Opaque datagrams relayed.
    pub opaque_out: u64,
    /// Datagrams from sources not accepted, whatever they hold. Packets on probation count here
    /// until their source is accepted.
    pub strangers: u64,
    /// Datagrams from accepted sources that are neither RTP nor RTCP.
    pub malformed: u64,
    /// Packets above a port's rate cap.
    pub rate_capped: u64,
    /// Datagrams from accepted sources cut by their buffer.
    pub truncated: u64,
    /// Datagrams for slots without a session.
    pub no_flow: u64,
    /// RTP packets with a payload type that was not negotiated (relayed all the same).
    pub unknown_payload: u64,
    /// Packets not relayed, as the far side's address is not known or it does not receive.
    pub not_sent: u64,
    /// Packets withheld by a mute, as the codec's silence is not known.
    pub mute_withheld: u64,
    /// Packets replaced by silence.
    pub muted: u64,
    /// Packets that carried what we play.
    pub played: u64,
    /// Copies sent by forks.
    pub forked: u64,
    /// Copies that forks held back, as the recorder takes nothing or not that payload type.
    pub fork_withheld: u64,
    /// Datagrams of recorders on the ports that copies leave by (their RTCP, and what does not belong
    /// there), which go nowhere.
    pub fork_in: u64,
    /// Packets that a transform refused (`open` or `seal`).
    pub transform_failed: u64,
    /// Sources learnt that differ from the advertised address.
    pub latched: u64,
    /// Changes of source shown to the far end as one stream.
    pub source_changes: u64,
    /// SSRCs evicted for a fifth one.
    pub ssrc_evicted: u64,
    /// Media timeouts reported.
    pub media_timeouts: u64,
}
