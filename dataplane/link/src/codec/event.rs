//! Events on the wire.

use super::CodecError;
use super::command::{header, read_header};
use super::parts;
use super::play;
use super::wire::{Reader, Writer};
use crate::limits::{MEDIA_MAX, RECORD_BYTES_MAX};
use crate::message::{Event, SnapshotSession};

const DONE: u16 = 101;
const FAILED: u16 = 102;
const SESSION_OPENED: u16 = 103;
const ENDPOINT_LEARNED: u16 = 104;
const SOURCE_CHANGED: u16 = 105;
const MEDIA_TIMEOUT: u16 = 106;
const SESSION_ENDED: u16 = 107;
const RECORDING_STATE: u16 = 108;
const RECORDING_PROGRESS: u16 = 109;
const RECORDING_CLOSED: u16 = 110;
const ALARM: u16 = 111;
const SNAPSHOT_SESSION: u16 = 112;
const SNAPSHOT_END: u16 = 113;
const FORK_PROGRESS: u16 = 114;
const DIGIT: u16 = 115;
const PLAYED: u16 = 116;

/// Encodes an event into `out` (replaced).
///
/// # Errors
/// `TooLarge` or `Invalid` when a field breaks a limit of the wire format.
pub fn encode_event(event: &Event, out: &mut Vec<u8>) -> Result<(), CodecError> {
    out.clear();
    let writer = &mut Writer(out);
    match event {
        Event::Done { request } => {
            header(writer, DONE, *request);
            Ok(())
        }
        Event::Failed { request, reason } => {
            header(writer, FAILED, *request);
            writer.u16(*reason as u16);
            Ok(())
        }
        Event::SessionOpened {
            request,
            session,
            worker,
            ports,
        } => {
            header(writer, SESSION_OPENED, *request);
            writer.u64(*session);
            writer.u16(*worker);
            writer.count(ports.len(), MEDIA_MAX)?;
            for pair in ports {
                writer.u16(pair[0]);
                writer.u16(pair[1]);
            }
            Ok(())
        }
        Event::SessionEnded { session } => {
            header(writer, SESSION_ENDED, 0);
            writer.u64(*session);
            Ok(())
        }
        Event::Alarm { code, active } => {
            header(writer, ALARM, 0);
            writer.u16(*code as u16);
            writer.boolean(*active);
            Ok(())
        }
        Event::ForkProgress {
            session,
            target,
            heard_ns,
            streams,
        } => {
            header(writer, FORK_PROGRESS, 0);
            writer.u64(*session);
            writer.u64(*target);
            writer.u64(*heard_ns);
            parts::write_fork_streams(writer, streams)
        }
        Event::SnapshotSession(session) => {
            header(writer, SNAPSHOT_SESSION, 0);
            write_snapshot_session(writer, session)
        }
        Event::SnapshotEnd { request } => {
            header(writer, SNAPSHOT_END, *request);
            Ok(())
        }
        Event::EndpointLearned { .. }
        | Event::SourceChanged { .. }
        | Event::Digit { .. }
        | Event::Played { .. }
        | Event::MediaTimeout { .. } => write_media_event(writer, event),
        Event::RecordingState { .. }
        | Event::RecordingProgress { .. }
        | Event::RecordingClosed { .. } => write_recording_event(writer, event),
    }
}

fn write_media_event(writer: &mut Writer<'_>, event: &Event) -> Result<(), CodecError> {
    match event {
        Event::EndpointLearned {
            session,
            media,
            side,
            rtcp,
            address,
        } => {
            parts::judge_media_index(*media)?;
            header(writer, ENDPOINT_LEARNED, 0);
            writer.u64(*session);
            writer.u8(*media);
            writer.u8(*side as u8);
            writer.boolean(*rtcp);
            writer.address(*address);
        }
        Event::SourceChanged {
            session,
            media,
            side,
            continuity,
        } => {
            parts::judge_media_index(*media)?;
            header(writer, SOURCE_CHANGED, 0);
            writer.u64(*session);
            writer.u8(*media);
            writer.u8(*side as u8);
            parts::write_continuity(writer, continuity);
        }
        Event::Digit {
            session,
            side,
            event,
            duration_ms,
        } => {
            header(writer, DIGIT, 0);
            writer.u64(*session);
            writer.u8(*side as u8);
            writer.u8(*event);
            writer.u32(*duration_ms);
        }
        Event::Played {
            session,
            media,
            to,
            play,
            from_mono_ns,
            to_mono_ns,
            packets,
            played_ms,
            whole,
        } => {
            parts::judge_media_index(*media)?;
            header(writer, PLAYED, 0);
            writer.u64(*session);
            writer.u8(*media);
            writer.u8(*to as u8);
            writer.u64(*play);
            writer.u64(*from_mono_ns);
            writer.u64(*to_mono_ns);
            writer.u32(*packets);
            writer.u32(*played_ms);
            writer.boolean(*whole);
        }
        Event::MediaTimeout { session, side } => {
            header(writer, MEDIA_TIMEOUT, 0);
            writer.u64(*session);
            writer.u8(*side as u8);
        }
        _ => unreachable!("not a media event"),
    }
    Ok(())
}

fn write_recording_event(writer: &mut Writer<'_>, event: &Event) -> Result<(), CodecError> {
    match event {
        Event::RecordingState {
            request,
            session,
            recording,
            phase,
            at_mono_ns,
            origin_mono_ns,
            streams,
        } => {
            header(writer, RECORDING_STATE, *request);
            writer.u64(*session);
            writer.u64(*recording);
            writer.u8(*phase as u8);
            writer.u64(*at_mono_ns);
            writer.u64(*origin_mono_ns);
            parts::write_streams(writer, streams)
        }
        Event::RecordingProgress {
            session,
            recording,
            next_ordinal,
            last_segment,
            last_page,
            streams,
        } => {
            header(writer, RECORDING_PROGRESS, 0);
            writer.u64(*session);
            writer.u64(*recording);
            writer.u32(*next_ordinal);
            writer.u32(*last_segment);
            writer.u32(*last_page);
            parts::write_streams(writer, streams)
        }
        Event::RecordingClosed {
            session,
            recording,
            extents,
            last_segment,
            last_page,
            bytes,
            chain_head,
            streams,
        } => {
            header(writer, RECORDING_CLOSED, 0);
            writer.u64(*session);
            writer.u64(*recording);
            writer.u32(*extents);
            writer.u32(*last_segment);
            writer.u32(*last_page);
            writer.u64(*bytes);
            writer.array(chain_head);
            parts::write_streams(writer, streams)
        }
        _ => unreachable!("not a recording event"),
    }
}

fn write_snapshot_session(
    writer: &mut Writer<'_>,
    session: &SnapshotSession,
) -> Result<(), CodecError> {
    writer.u64(session.session);
    parts::write_media(writer, &session.media)?;
    writer.u8(session.interface[0]);
    writer.u8(session.interface[1]);
    writer.u64(session.recording);
    writer.u8(session.phase as u8);
    writer.u64(session.origin_mono_ns);
    writer.bytes(&session.record, RECORD_BYTES_MAX)
}

/// Decodes an event.
///
/// # Errors
/// See [`CodecError`]; never panics, whatever the bytes.
pub fn decode_event(message: &[u8]) -> Result<Event, CodecError> {
    let mut reader = Reader(message);
    let (kind, request) = read_header(&mut reader)?;
    let answers = matches!(
        kind,
        DONE | FAILED | SESSION_OPENED | RECORDING_STATE | SNAPSHOT_END
    );
    if !answers && request != 0 {
        return Err(CodecError::Invalid("request"));
    }
    let event = read_fields(&mut reader, kind, request)?;
    reader.end()?;
    Ok(event)
}

fn read_fields(reader: &mut Reader<'_>, kind: u16, request: u64) -> Result<Event, CodecError> {
    Ok(match kind {
        DONE => Event::Done { request },
        FAILED => Event::Failed {
            request,
            reason: parts::fail_reason(reader)?,
        },
        SESSION_OPENED => Event::SessionOpened {
            request,
            session: reader.u64()?,
            worker: reader.u16()?,
            ports: {
                let count = reader.count(MEDIA_MAX)?;
                (0..count)
                    .map(|_| Ok([reader.u16()?, reader.u16()?]))
                    .collect::<Result<_, CodecError>>()?
            },
        },
        ENDPOINT_LEARNED => Event::EndpointLearned {
            session: reader.u64()?,
            media: parts::media_index(reader)?,
            side: parts::side(reader)?,
            rtcp: reader.boolean()?,
            address: reader.address()?,
        },
        SOURCE_CHANGED => Event::SourceChanged {
            session: reader.u64()?,
            media: parts::media_index(reader)?,
            side: parts::side(reader)?,
            continuity: parts::read_continuity(reader)?,
        },
        DIGIT => Event::Digit {
            session: reader.u64()?,
            side: parts::side(reader)?,
            event: reader.u8()?,
            duration_ms: reader.u32()?,
        },
        PLAYED => play::read_played(reader)?,
        MEDIA_TIMEOUT => Event::MediaTimeout {
            session: reader.u64()?,
            side: parts::side(reader)?,
        },
        SESSION_ENDED => Event::SessionEnded {
            session: reader.u64()?,
        },
        RECORDING_STATE | RECORDING_PROGRESS | RECORDING_CLOSED => {
            read_recording_event(reader, kind, request)?
        }
        ALARM => Event::Alarm {
            code: parts::alarm(reader)?,
            active: reader.boolean()?,
        },
        FORK_PROGRESS => Event::ForkProgress {
            session: reader.u64()?,
            target: reader.u64()?,
            heard_ns: reader.u64()?,
            streams: parts::read_fork_streams(reader)?,
        },
        SNAPSHOT_SESSION => Event::SnapshotSession(SnapshotSession {
            session: reader.u64()?,
            media: parts::read_media(reader)?,
            interface: [reader.u8()?, reader.u8()?],
            recording: reader.u64()?,
            phase: parts::phase(reader)?,
            origin_mono_ns: reader.u64()?,
            record: reader.bytes(RECORD_BYTES_MAX)?,
        }),
        SNAPSHOT_END => Event::SnapshotEnd { request },
        _ => return Err(CodecError::Invalid("event")),
    })
}

fn read_recording_event(
    reader: &mut Reader<'_>,
    kind: u16,
    request: u64,
) -> Result<Event, CodecError> {
    let session = reader.u64()?;
    let recording = reader.u64()?;
    Ok(match kind {
        RECORDING_STATE => Event::RecordingState {
            request,
            session,
            recording,
            phase: parts::phase(reader)?,
            at_mono_ns: reader.u64()?,
            origin_mono_ns: reader.u64()?,
            streams: parts::read_streams(reader)?,
        },
        RECORDING_PROGRESS => Event::RecordingProgress {
            session,
            recording,
            next_ordinal: reader.u32()?,
            last_segment: reader.u32()?,
            last_page: reader.u32()?,
            streams: parts::read_streams(reader)?,
        },
        _ => Event::RecordingClosed {
            session,
            recording,
            extents: reader.u32()?,
            last_segment: reader.u32()?,
            last_page: reader.u32()?,
            bytes: reader.u64()?,
            chain_head: reader.array()?,
            streams: parts::read_streams(reader)?,
        },
    })
}
