//! Between the link's words and the engine's.

use std::sync::Arc;

use trunkline_engine as engine;
use trunkline_link::message as link;

use super::message::WorkerEvent;

pub(super) fn side(side: link::Side) -> engine::Side {
    match side {
        link::Side::Caller => engine::Side::Caller,
        link::Side::Callee => engine::Side::Callee,
    }
}

pub(super) fn link_side(side: engine::Side) -> link::Side {
    match side {
        engine::Side::Caller => link::Side::Caller,
        engine::Side::Callee => link::Side::Callee,
    }
}

pub(super) fn media_kind(kind: link::MediaKind) -> engine::MediaKind {
    match kind {
        link::MediaKind::Audio => engine::MediaKind::Audio,
        link::MediaKind::OpaqueRtp => engine::MediaKind::OpaqueRtp,
        link::MediaKind::OpaqueDatagram => engine::MediaKind::OpaqueDatagram,
    }
}

pub(super) fn fork_state(state: link::ForkState) -> engine::ForkState {
    match state {
        link::ForkState::Running => engine::ForkState::Running,
        link::ForkState::Paused => engine::ForkState::Paused,
        link::ForkState::Silenced => engine::ForkState::Silenced,
    }
}

pub(super) fn digit_spec(digit: &link::DigitSend) -> engine::DigitSpec {
    engine::DigitSpec {
        session: digit.session,
        media: digit.media,
        to: side(digit.to),
        payload_type: digit.pt,
        clock_hz: digit.clock_hz,
        event: digit.event,
        duration_ms: digit.duration_ms,
        ssrc: digit.ssrc,
    }
}

/// A play, by sources in the order of its voices.
pub(super) fn play_spec(
    play: &link::PlayStart,
    sources: &[Arc<engine::Source>],
) -> engine::PlaySpec {
    let voices = play.voices.iter().zip(sources);
    engine::PlaySpec {
        session: play.session,
        media: play.media,
        to: side(play.to),
        play: play.play,
        mode: match play.mode {
            link::PlayMode::Insert => engine::PlayMode::Insert,
            link::PlayMode::Mix => engine::PlayMode::Mix,
        },
        every_ns: u64::from(play.every_ms) * 1_000_000,
        packet_us: u32::from(play.packet_ms) * 1_000,
        ssrc: play.ssrc,
        voices: voices
            .map(|(voice, source)| engine::Voice {
                payload_type: voice.pt,
                source: Arc::clone(source),
            })
            .collect(),
    }
}

pub(crate) fn codec(codec: link::CodecId) -> engine::Codec {
    match codec {
        link::CodecId::Pcmu => engine::Codec::Pcmu,
        link::CodecId::Pcma => engine::Codec::Pcma,
        link::CodecId::G722 => engine::Codec::G722,
        link::CodecId::Opus => engine::Codec::Opus,
        link::CodecId::L16 => engine::Codec::L16,
        link::CodecId::TelephoneEvent => engine::Codec::TelephoneEvent,
        link::CodecId::ComfortNoise => engine::Codec::ComfortNoise,
        // Their silence is not known, so they are as good as any other.
        link::CodecId::Other | link::CodecId::G729 | link::CodecId::Gsm => engine::Codec::Other,
    }
}

fn payload(payload: &link::Payload) -> engine::PayloadSpec {
    engine::PayloadSpec {
        pt: payload.pt,
        to_pt: payload.to_pt,
        codec: codec(payload.codec),
        clock_hz: payload.clock_hz,
    }
}

pub(super) fn leg(update: &link::LegUpdate) -> engine::LegSpec {
    let has = |flag| update.flags & flag != 0;
    engine::LegSpec {
        session: update.session,
        media: update.media,
        side: side(update.side),
        flags: engine::LegFlags {
            rtcp_mux: has(link::leg_flags::RTCP_MUX),
            mute: has(link::leg_flags::MUTE),
            nat: has(link::leg_flags::NAT),
            learn: has(link::leg_flags::LEARN),
            expect_media: has(link::leg_flags::EXPECT_MEDIA),
            may_send: has(link::leg_flags::MAY_SEND),
        },
        rtp: update.rtp,
        rtcp: update.rtcp,
        signalling: update.signalling,
        payloads: update.payloads.iter().map(payload).collect(),
        restore: update.restore.map(|restore| engine::LegRestore {
            learned_rtp: restore.learned_rtp,
            learned_rtcp: restore.learned_rtcp,
            continuity: restore.continuity.map(|continuity| engine::Continuity {
                ssrc_in: continuity.ssrc_in,
                ssrc_out: continuity.ssrc_out,
                sequence_offset: continuity.sequence_offset,
                timestamp_offset: continuity.timestamp_offset,
            }),
        }),
    }
}

/// What the engine reports, for the conductor.
pub(super) fn worker_event(event: engine::Event) -> WorkerEvent {
    match event {
        engine::Event::EndpointLearned {
            session,
            media,
            side,
            rtcp,
            address,
        } => WorkerEvent::EndpointLearned {
            session,
            media,
            side: link_side(side),
            rtcp,
            address,
        },
        engine::Event::SourceChanged {
            session,
            media,
            side,
            continuity: found,
        } => WorkerEvent::SourceChanged {
            session,
            media,
            side: link_side(side),
            continuity: continuity(found),
        },
        engine::Event::Digit {
            session,
            side,
            event,
            duration_ms,
        } => WorkerEvent::Digit {
            session,
            side: link_side(side),
            event,
            duration_ms,
        },
        engine::Event::Played {
            session,
            media,
            to,
            play,
            from_ns,
            to_ns,
            packets,
            played_us,
            whole,
        } => WorkerEvent::Played {
            session,
            media,
            to: link_side(to),
            play,
            from_ns,
            to_ns,
            packets,
            played_ms: u32::try_from(played_us / 1_000).unwrap_or(u32::MAX),
            whole,
        },
        engine::Event::MediaTimeout { session, side } => WorkerEvent::MediaTimeout {
            session,
            side: link_side(side),
        },
    }
}

fn continuity(continuity: engine::Continuity) -> link::Continuity {
    link::Continuity {
        ssrc_in: continuity.ssrc_in,
        ssrc_out: continuity.ssrc_out,
        sequence_offset: continuity.sequence_offset,
        timestamp_offset: continuity.timestamp_offset,
    }
}

pub(super) fn receipt(receipt: &engine::StreamReceipt) -> link::StreamReceipt {
    link::StreamReceipt {
        side: link_side(receipt.side),
        media: receipt.media,
        ssrc: receipt.ssrc,
        expected: receipt.expected,
        written: receipt.written,
        lost: receipt.lost,
        dropped: receipt.dropped,
        duplicates: receipt.duplicates,
        reordered: receipt.reordered,
        bytes: receipt.bytes,
        first_ns: receipt.first_ns,
        last_ns: receipt.last_ns,
        covered_ns: receipt.covered_ns,
        first_sequence: receipt.first_sequence,
    }
}

pub(super) fn fail_reason(error: engine::EngineError) -> link::FailReason {
    match error {
        engine::EngineError::NotFound => link::FailReason::NotFound,
        engine::EngineError::NoCapacity => link::FailReason::NoCapacity,
        engine::EngineError::Invalid => link::FailReason::Invalid,
        engine::EngineError::WrongState => link::FailReason::WrongState,
    }
}

// The engine knows nothing of the link; both must agree on the receipts' layout.
const _: () = assert!(engine::DROP_REASONS == link::DropReason::ALL.len());
const _: () = assert!(engine::DropReason::Limit as usize == link::DropReason::Limit as usize);
const _: () = assert!(engine::DropReason::RateCap as usize == link::DropReason::RateCap as usize);
const _: () = assert!(engine::DropReason::NoExtent as usize == link::DropReason::NoExtent as usize);
const _: () = assert!(engine::MEDIA_MAX == trunkline_link::limits::MEDIA_MAX);
const _: () = assert!(engine::PAYLOADS_MAX == trunkline_link::limits::PAYLOADS_MAX);
const _: () = assert!(engine::STREAMS_MAX == trunkline_link::limits::STREAMS_MAX);
const _: () = assert!(engine::SSRCS_MAX == trunkline_link::limits::SSRCS_MAX);
