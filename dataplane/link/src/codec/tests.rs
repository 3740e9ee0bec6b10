//! Everything that can be sent comes back as it was; everything else is an error.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

use proptest::prelude::*;

use super::*;
use crate::limits::{
    FACT_BYTES_MAX, FORK_STREAMS_MAX, MEDIA_MAX, MESSAGE_BYTES_MAX, PAYLOADS_MAX, RECORD_BYTES_MAX,
    SOURCE_FRAME_BYTES_MAX, STREAMS_MAX, VOICES_MAX,
};
use crate::message::*;

fn side() -> impl Strategy<Value = Side> {
    prop::sample::select(Side::BOTH.to_vec())
}

fn media_kind() -> impl Strategy<Value = MediaKind> {
    use MediaKind::*;
    prop::sample::select(vec![Audio, OpaqueRtp, OpaqueDatagram])
}

fn codec() -> impl Strategy<Value = CodecId> {
    use CodecId::*;
    prop::sample::select(vec![
        Other,
        Pcmu,
        Pcma,
        G722,
        Opus,
        L16,
        TelephoneEvent,
        ComfortNoise,
        G729,
        Gsm,
    ])
}

fn phase() -> impl Strategy<Value = RecordingPhase> {
    use RecordingPhase::*;
    prop::sample::select(vec![Running, Paused, Stopped])
}

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        (any::<[u8; 4]>(), any::<u16>())
            .prop_map(|(ip, port)| SocketAddrV4::new(ip.into(), port).into()),
        (any::<[u8; 16]>(), any::<u16>(), any::<u32>(), any::<u32>()).prop_map(
            |(ip, port, flow, scope)| SocketAddrV6::new(ip.into(), port, flow, scope).into()
        ),
    ]
}

fn ip() -> impl Strategy<Value = IpAddr> {
    address().prop_map(|address| address.ip())
}

fn media_open() -> impl Strategy<Value = MediaOpen> {
    (media_kind(), any::<[u16; 2]>()).prop_map(|(kind, ports)| MediaOpen { kind, ports })
}

fn payload() -> impl Strategy<Value = Payload> {
    (0..=127_u8, 0..=127_u8, codec(), any::<u32>()).prop_map(|(pt, to_pt, codec, clock_hz)| {
        Payload {
            pt,
            to_pt,
            codec,
            clock_hz,
        }
    })
}

fn continuity() -> impl Strategy<Value = Continuity> {
    any::<(u32, u32, u16, u32)>().prop_map(
        |(ssrc_in, ssrc_out, sequence_offset, timestamp_offset)| Continuity {
            ssrc_in,
            ssrc_out,
            sequence_offset,
            timestamp_offset,
        },
    )
}

fn media_index() -> impl Strategy<Value = u8> {
    0..MEDIA_MAX as u8
}

fn bytes(limit: usize) -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..64),
        Just(vec![0xA5; limit]),
    ]
}

fn receipt() -> impl Strategy<Value = StreamReceipt> {
    (
        side(),
        media_index(),
        any::<u32>(),
        any::<[u64; 9]>(),
        any::<[u64; 9]>(),
    )
        .prop_map(|(side, media, ssrc, dropped, n)| StreamReceipt {
            side,
            media,
            ssrc,
            expected: n[0],
            written: n[1],
            lost: n[2],
            dropped,
            duplicates: n[3],
            reordered: n[4],
            bytes: n[5],
            first_ns: n[6],
            last_ns: n[7],
            covered_ns: n[8],
            first_sequence: n[8] as u16,
        })
}

fn streams() -> impl Strategy<Value = Vec<StreamReceipt>> {
    prop_oneof![
        prop::collection::vec(receipt(), 0..4),
        receipt().prop_map(|stream| vec![stream; STREAMS_MAX]),
    ]
}

fn fork_state() -> impl Strategy<Value = ForkState> {
    use ForkState::*;
    prop::sample::select(vec![Running, Paused, Silenced])
}

fn fork_stream() -> impl Strategy<Value = ForkStream> {
    (media_index(), side(), any::<[u64; 3]>()).prop_map(|(media, side, n)| ForkStream {
        media,
        side,
        packets: n[0],
        payload_bytes: n[1],
        withheld: n[2],
    })
}

fn leg_update() -> impl Strategy<Value = LegUpdate> {
    let restore = (
        prop::option::of(address()),
        prop::option::of(address()),
        prop::option::of(continuity()),
    )
        .prop_map(|(learned_rtp, learned_rtcp, continuity)| LegRestore {
            learned_rtp,
            learned_rtcp,
            continuity,
        });
    (
        (any::<u64>(), media_index(), side(), 0..=leg_flags::ALL),
        prop::option::of(address()),
        prop::option::of(address()),
        prop::option::of(ip()),
        prop::collection::vec(payload(), 0..=PAYLOADS_MAX),
        prop::option::of(restore),
    )
        .prop_map(
            |((session, media, side, flags), rtp, rtcp, signalling, payloads, restore)| LegUpdate {
                session,
                media,
                side,
                flags,
                rtp,
                rtcp,
                signalling,
                payloads,
                restore,
            },
        )
}

fn command() -> impl Strategy<Value = Command> {
    let pair = || any::<(u64, u64)>();
    let open = (
        any::<u64>(),
        any::<[u8; 2]>(),
        any::<(u32, u64)>(),
        prop::collection::vec(media_open(), 0..=MEDIA_MAX),
    )
        .prop_map(|(session, interface, (media_timeout_ms, beside), media)| {
            Command::SessionOpen(SessionOpen {
                session,
                interface,
                media_timeout_ms,
                beside,
                media,
            })
        });
    let start = (pair(), any::<(u64, u32, u32, u32)>(), bytes(FACT_BYTES_MAX)).prop_map(
        |((session, recording), n, open_fact)| {
            Command::RecordingStart(RecordingStart {
                session,
                recording,
                origin_mono_ns: n.0,
                first_ordinal: n.1,
                prev_segment: n.2,
                prev_page: n.3,
                open_fact,
            })
        },
    );
    let kinds = vec![
        FactKind::CallOpen,
        FactKind::CallChange,
        FactKind::CallClose,
    ];
    let fact = (pair(), prop::sample::select(kinds), bytes(FACT_BYTES_MAX)).prop_map(
        |((session, recording), kind, fact)| Command::RecordingFact {
            session,
            recording,
            kind,
            fact,
        },
    );
    prop_oneof![
        open,
        leg_update().prop_map(Command::LegUpdate),
        (any::<u64>(), bytes(RECORD_BYTES_MAX))
            .prop_map(|(session, record)| Command::SessionRecord { session, record }),
        any::<u64>().prop_map(|session| Command::SessionClose { session }),
        start,
        pair().prop_map(|(session, recording)| Command::RecordingPause { session, recording }),
        pair().prop_map(|(session, recording)| Command::RecordingResume { session, recording }),
        pair().prop_map(|(session, recording)| Command::RecordingStop { session, recording }),
        fact,
        pair().prop_map(|(session, recording)| Command::RecordingFinish { session, recording }),
        pair().prop_map(|(session, target)| Command::ForkStart { session, target }),
        (pair(), fork_state()).prop_map(|((session, target), state)| Command::ForkState {
            session,
            target,
            state
        }),
        pair().prop_map(|(session, target)| Command::ForkStop { session, target }),
        digit().prop_map(Command::DigitSend),
        source().prop_map(Command::SourceLoad),
        play().prop_map(Command::PlayStart),
        (any::<u64>(), media_index(), side()).prop_map(|(session, media, to)| Command::PlayStop {
            session,
            media,
            to
        }),
        Just(Command::Snapshot),
        Just(Command::Drain),
    ]
}

fn digit() -> impl Strategy<Value = DigitSend> {
    (
        (any::<u64>(), media_index(), side(), 0..128_u8),
        (1..u32::MAX, 0..16_u8, any::<u16>(), any::<u32>()),
    )
        .prop_map(
            |((session, media, to, pt), (clock_hz, event, duration_ms, ssrc))| DigitSend {
                session,
                media,
                to,
                pt,
                clock_hz,
                event,
                duration_ms,
                ssrc,
            },
        )
}

fn source() -> impl Strategy<Value = SourceLoad> {
    let frames = prop::collection::vec(bytes(SOURCE_FRAME_BYTES_MAX), 1..=9);
    (any::<(u64, u32, u32)>(), 0..1000_u32, frames).prop_map(
        |((source, clock_hz, frame_us), first, frames)| SourceLoad {
            source,
            codec: CodecId::G722,
            clock_hz,
            frame_us,
            frames_total: first + frames.len() as u32,
            first,
            frames,
        },
    )
}

fn play() -> impl Strategy<Value = PlayStart> {
    let voice = (any::<u64>(), 0..128_u8).prop_map(|(source, pt)| PlayVoice { source, pt });
    let modes = vec![PlayMode::Insert, PlayMode::Mix];
    (
        (any::<u64>(), media_index(), side(), any::<u64>()),
        prop::sample::select(modes),
        any::<(u32, u16, u32)>(),
        prop::collection::vec(voice, 0..=VOICES_MAX),
    )
        .prop_map(
            |((session, media, to, play), mode, (every_ms, packet_ms, ssrc), voices)| PlayStart {
                session,
                media,
                to,
                play,
                mode,
                every_ms,
                packet_ms,
                ssrc,
                voices,
            },
        )
}

fn media_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (
            any::<u64>(),
            media_index(),
            side(),
            any::<bool>(),
            address()
        )
            .prop_map(
                |(session, media, side, rtcp, address)| Event::EndpointLearned {
                    session,
                    media,
                    side,
                    rtcp,
                    address
                }
            ),
        (any::<u64>(), media_index(), side(), continuity()).prop_map(
            |(session, media, side, continuity)| Event::SourceChanged {
                session,
                media,
                side,
                continuity
            }
        ),
        (any::<u64>(), side(), any::<u8>(), any::<u32>()).prop_map(
            |(session, side, event, duration_ms)| Event::Digit {
                session,
                side,
                event,
                duration_ms
            }
        ),
        (any::<u64>(), side()).prop_map(|(session, side)| Event::MediaTimeout { session, side }),
        (
            (any::<[u64; 4]>(), media_index(), side()),
            any::<(u32, u32, bool)>()
        )
            .prop_map(
                |((n, media, to), (packets, played_ms, whole))| Event::Played {
                    session: n[0],
                    media,
                    to,
                    play: n[1],
                    from_mono_ns: n[2],
                    to_mono_ns: n[3],
                    packets,
                    played_ms,
                    whole,
                }
            ),
        (
            any::<[u64; 3]>(),
            prop::collection::vec(fork_stream(), 0..=FORK_STREAMS_MAX)
        )
            .prop_map(|(n, streams)| Event::ForkProgress {
                session: n[0],
                target: n[1],
                heard_ns: n[2],
                streams
            }),
    ]
}

fn recording_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (any::<[u64; 5]>(), phase(), streams()).prop_map(|(n, phase, streams)| {
            Event::RecordingState {
                request: n[0],
                session: n[1],
                recording: n[2],
                phase,
                at_mono_ns: n[3],
                origin_mono_ns: n[4],
                streams,
            }
        }),
        (any::<(u64, u64)>(), any::<[u32; 3]>(), streams()).prop_map(|(n, places, streams)| {
            Event::RecordingProgress {
                session: n.0,
                recording: n.1,
                next_ordinal: places[0],
                last_segment: places[1],
                last_page: places[2],
                streams,
            }
        }),
        (any::<(u64, u64, u64)>(), any::<[u32; 3]>(), streams()).prop_map(
            |(n, places, streams)| Event::RecordingClosed {
                session: n.0,
                recording: n.1,
                extents: places[0],
                last_segment: places[1],
                last_page: places[2],
                bytes: n.2,
                chain_head: [n.2 as u8; 32],
                streams,
            }
        ),
    ]
}

fn plain_event() -> impl Strategy<Value = Event> {
    use FailReason::*;
    let reasons = vec![
        NotFound, NoPorts, NoCapacity, Invalid, WrongState, PortBusy, Draining, Internal,
    ];
    let alarms = vec![
        AlarmCode::CaptureDisk,
        AlarmCode::CaptureNoExtent,
        AlarmCode::PortsShort,
    ];
    let snapshot = (
        any::<u64>(),
        prop::collection::vec(media_open(), 0..=MEDIA_MAX),
        any::<[u8; 2]>(),
        any::<(u64, u64)>(),
        phase(),
        bytes(RECORD_BYTES_MAX),
    )
        .prop_map(
            |(session, media, interface, (recording, origin_mono_ns), phase, record)| {
                Event::SnapshotSession(SnapshotSession {
                    session,
                    media,
                    interface,
                    recording,
                    phase,
                    origin_mono_ns,
                    record,
                })
            },
        );
    prop_oneof![
        any::<u64>().prop_map(|request| Event::Done { request }),
        (any::<u64>(), prop::sample::select(reasons))
            .prop_map(|(request, reason)| Event::Failed { request, reason }),
        (
            any::<(u64, u64, u16)>(),
            prop::collection::vec(any::<[u16; 2]>(), 0..=MEDIA_MAX)
        )
            .prop_map(|((request, session, worker), ports)| Event::SessionOpened {
                request,
                session,
                worker,
                ports
            }),
        any::<u64>().prop_map(|session| Event::SessionEnded { session }),
        (prop::sample::select(alarms), any::<bool>())
            .prop_map(|(code, active)| Event::Alarm { code, active }),
        snapshot,
        any::<u64>().prop_map(|request| Event::SnapshotEnd { request }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![media_event(), recording_event(), plain_event()]
}

proptest! {
    #[test]
    fn commands_come_back_as_they_were(request: u64, command in command()) {
        let mut wire = Vec::new();
        encode_command(request, &command, &mut wire).unwrap();
        prop_assert!(wire.len() <= MESSAGE_BYTES_MAX);
        prop_assert_eq!(peek_request(&wire), Some(request));
        prop_assert_eq!(decode_command(&wire), Ok((request, command)));
    }

    #[test]
    fn events_come_back_as_they_were(event in event()) {
        let mut wire = Vec::new();
        encode_event(&event, &mut wire).unwrap();
        prop_assert!(wire.len() <= MESSAGE_BYTES_MAX);
        prop_assert_eq!(decode_event(&wire), Ok(event));
    }

    #[test]
    fn cut_and_lengthened_messages_are_errors(command in command(), cut in any::<prop::sample::Index>()) {
        let mut wire = Vec::new();
        encode_command(1, &command, &mut wire).unwrap();
        prop_assert!(decode_command(&wire[..cut.index(wire.len())]).is_err());
        wire.push(0);
        prop_assert!(decode_command(&wire).is_err());
    }

    #[test]
    fn random_bytes_never_panic_and_what_decodes_is_canonical(
        kind in 0..120_u16,
        tail in prop::collection::vec(any::<u8>(), 0..200),
        sparse in any::<bool>(),
    ) {
        let mut wire = kind.to_le_bytes().to_vec();
        wire.extend_from_slice(&[0; 6]);
        wire.extend(tail.iter().map(|byte| if sparse { byte & 1 } else { *byte }));
        let mut again = Vec::new();
        if let Ok((request, command)) = decode_command(&wire) {
            encode_command(request, &command, &mut again).unwrap();
            prop_assert_eq!(&again, &wire);
        }
        if let Ok(event) = decode_event(&wire) {
            encode_event(&event, &mut again).unwrap();
            prop_assert_eq!(&again, &wire);
        }
        let _ = decode_command(&tail);
        let _ = decode_event(&tail);
    }

    #[test]
    fn one_flipped_bit_is_an_error_or_another_message(event in event(), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let mut wire = Vec::new();
        encode_event(&event, &mut wire).unwrap();
        let place = at.index(wire.len());
        wire[place] ^= 1 << bit;
        prop_assert_ne!(decode_event(&wire), Ok(event));
    }
}

#[test]
fn limits_hold_on_the_way_out() {
    let mut wire = Vec::new();
    let record = vec![0; RECORD_BYTES_MAX + 1];
    let command = Command::SessionRecord { session: 1, record };
    assert_eq!(
        encode_command(1, &command, &mut wire),
        Err(CodecError::TooLarge)
    );
    let open = SessionOpen {
        session: 1,
        interface: [0, 0],
        media_timeout_ms: 0,
        beside: 0,
        media: vec![
            MediaOpen {
                kind: MediaKind::Audio,
                ports: [0, 0]
            };
            MEDIA_MAX + 1
        ],
    };
    let command = Command::SessionOpen(open);
    assert_eq!(
        encode_command(1, &command, &mut wire),
        Err(CodecError::TooLarge)
    );
    let piece = |frames_total, first, frames| {
        Command::SourceLoad(SourceLoad {
            source: 1,
            codec: CodecId::Pcmu,
            clock_hz: 8000,
            frame_us: 20_000,
            frames_total,
            first,
            frames,
        })
    };
    let many = vec![vec![0; SOURCE_FRAME_BYTES_MAX]; 10];
    let outside = CodecError::Invalid("piece of a source");
    for (command, error) in [
        (piece(10, 0, many), CodecError::TooLarge),
        (
            piece(1, 0, vec![vec![0; SOURCE_FRAME_BYTES_MAX + 1]]),
            CodecError::TooLarge,
        ),
        (piece(1, 0, Vec::new()), outside),
        (piece(1, 1, vec![vec![0; 160]]), outside),
        (piece(u32::MAX, 7, vec![vec![0; 160]]), outside),
    ] {
        assert_eq!(encode_command(1, &command, &mut wire), Err(error));
    }
}
