//! Commands on the wire.

use super::CodecError;
use super::parts;
use super::play;
use super::wire::{Reader, Writer};
use crate::limits::{FACT_BYTES_MAX, PAYLOADS_MAX, RECORD_BYTES_MAX};
use crate::message::{
    Command, DigitSend, LegRestore, LegUpdate, RecordingStart, SessionOpen, leg_flags,
};

const SESSION_OPEN: u16 = 1;
const LEG_UPDATE: u16 = 2;
const SESSION_RECORD: u16 = 3;
const SESSION_CLOSE: u16 = 4;
const RECORDING_START: u16 = 5;
const RECORDING_PAUSE: u16 = 6;
const RECORDING_RESUME: u16 = 7;
const RECORDING_STOP: u16 = 8;
const RECORDING_FACT: u16 = 9;
const RECORDING_FINISH: u16 = 10;
const SNAPSHOT: u16 = 11;
const DRAIN: u16 = 12;
const FORK_START: u16 = 13;
const FORK_STATE: u16 = 14;
const FORK_STOP: u16 = 15;
const DIGIT_SEND: u16 = 16;
const SOURCE_LOAD: u16 = 17;
const PLAY_START: u16 = 18;
const PLAY_STOP: u16 = 19;

/// Writes the 16-byte header.
pub(super) fn header(writer: &mut Writer<'_>, kind: u16, request: u64) {
    writer.u16(kind);
    writer.u16(0);
    writer.u32(0);
    writer.u64(request);
}

/// Reads it: (kind, request).
pub(super) fn read_header(reader: &mut Reader<'_>) -> Result<(u16, u64), CodecError> {
    let kind = reader.u16()?;
    if reader.u16()? != 0 || reader.u32()? != 0 {
        return Err(CodecError::Invalid("reserved field"));
    }
    Ok((kind, reader.u64()?))
}

/// Encodes a command into `out` (replaced).
///
/// # Errors
/// `TooLarge` or `Invalid` when a field breaks a limit of the wire format.
pub fn encode_command(
    request: u64,
    command: &Command,
    out: &mut Vec<u8>,
) -> Result<(), CodecError> {
    out.clear();
    let writer = &mut Writer(out);
    match command {
        Command::SessionOpen(open) => {
            header(writer, SESSION_OPEN, request);
            write_session_open(writer, open)
        }
        Command::LegUpdate(update) => {
            header(writer, LEG_UPDATE, request);
            write_leg_update(writer, update)
        }
        Command::SessionRecord { session, record } => {
            header(writer, SESSION_RECORD, request);
            writer.u64(*session);
            writer.bytes(record, RECORD_BYTES_MAX)
        }
        Command::SessionClose { session } => {
            header(writer, SESSION_CLOSE, request);
            writer.u64(*session);
            Ok(())
        }
        Command::RecordingStart(start) => {
            header(writer, RECORDING_START, request);
            write_recording_start(writer, start)
        }
        Command::RecordingPause { session, recording } => {
            pair(writer, RECORDING_PAUSE, request, *session, *recording)
        }
        Command::RecordingResume { session, recording } => {
            pair(writer, RECORDING_RESUME, request, *session, *recording)
        }
        Command::RecordingStop { session, recording } => {
            pair(writer, RECORDING_STOP, request, *session, *recording)
        }
        Command::RecordingFact {
            session,
            recording,
            kind,
            fact,
        } => {
            pair(writer, RECORDING_FACT, request, *session, *recording)?;
            writer.u8(*kind as u8);
            writer.bytes(fact, FACT_BYTES_MAX)
        }
        Command::RecordingFinish { session, recording } => {
            pair(writer, RECORDING_FINISH, request, *session, *recording)
        }
        Command::ForkStart { session, target } => {
            pair(writer, FORK_START, request, *session, *target)
        }
        Command::ForkState {
            session,
            target,
            state,
        } => {
            pair(writer, FORK_STATE, request, *session, *target)?;
            writer.u8(*state as u8);
            Ok(())
        }
        Command::ForkStop { session, target } => {
            pair(writer, FORK_STOP, request, *session, *target)
        }
        Command::DigitSend(digit) => {
            header(writer, DIGIT_SEND, request);
            write_digit(writer, digit)
        }
        Command::SourceLoad(piece) => {
            header(writer, SOURCE_LOAD, request);
            play::write_source(writer, piece)
        }
        Command::PlayStart(start) => {
            header(writer, PLAY_START, request);
            play::write_play(writer, start)
        }
        Command::PlayStop { session, media, to } => {
            parts::judge_media_index(*media)?;
            header(writer, PLAY_STOP, request);
            writer.u64(*session);
            writer.u8(*media);
            writer.u8(*to as u8);
            Ok(())
        }
        Command::Snapshot => {
            header(writer, SNAPSHOT, request);
            Ok(())
        }
        Command::Drain => {
            header(writer, DRAIN, request);
            Ok(())
        }
    }
}

/// A message that starts with a session and a recording, or two sessions.
fn pair(
    writer: &mut Writer<'_>,
    kind: u16,
    request: u64,
    session: u64,
    recording: u64,
) -> Result<(), CodecError> {
    header(writer, kind, request);
    writer.u64(session);
    writer.u64(recording);
    Ok(())
}

fn write_session_open(writer: &mut Writer<'_>, open: &SessionOpen) -> Result<(), CodecError> {
    writer.u64(open.session);
    writer.u8(open.interface[0]);
    writer.u8(open.interface[1]);
    writer.u32(open.media_timeout_ms);
    writer.u64(open.beside);
    parts::write_media(writer, &open.media)
}

fn write_leg_update(writer: &mut Writer<'_>, update: &LegUpdate) -> Result<(), CodecError> {
    parts::judge_media_index(update.media)?;
    judge_flags(update.flags)?;
    writer.u64(update.session);
    writer.u8(update.media);
    writer.u8(update.side as u8);
    writer.u32(update.flags);
    writer.option(update.rtp, Writer::address);
    writer.option(update.rtcp, Writer::address);
    writer.option(update.signalling, Writer::ip);
    writer.count(update.payloads.len(), PAYLOADS_MAX)?;
    for payload in &update.payloads {
        parts::write_payload(writer, payload)?;
    }
    writer.option(update.restore.as_ref(), |writer, restore| {
        writer.option(restore.learned_rtp, Writer::address);
        writer.option(restore.learned_rtcp, Writer::address);
        writer.option(restore.continuity.as_ref(), parts::write_continuity);
    });
    Ok(())
}

fn write_digit(writer: &mut Writer<'_>, digit: &DigitSend) -> Result<(), CodecError> {
    parts::judge_media_index(digit.media)?;
    judge_digit(digit)?;
    writer.u64(digit.session);
    writer.u8(digit.media);
    writer.u8(digit.to as u8);
    writer.u8(digit.pt);
    writer.u32(digit.clock_hz);
    writer.u8(digit.event);
    writer.u16(digit.duration_ms);
    writer.u32(digit.ssrc);
    Ok(())
}

fn read_digit(reader: &mut Reader<'_>) -> Result<DigitSend, CodecError> {
    let digit = DigitSend {
        session: reader.u64()?,
        media: parts::media_index(reader)?,
        to: parts::side(reader)?,
        pt: reader.u8()?,
        clock_hz: reader.u32()?,
        event: reader.u8()?,
        duration_ms: reader.u16()?,
        ssrc: reader.u32()?,
    };
    judge_digit(&digit)?;
    Ok(digit)
}

fn judge_digit(digit: &DigitSend) -> Result<(), CodecError> {
    if digit.pt < 128 && digit.event < 16 && digit.clock_hz > 0 {
        Ok(())
    } else {
        Err(CodecError::Invalid("digit"))
    }
}

fn judge_flags(flags: u32) -> Result<(), CodecError> {
    if flags & !leg_flags::ALL == 0 {
        Ok(())
    } else {
        Err(CodecError::Invalid("leg flag"))
    }
}

fn write_recording_start(
    writer: &mut Writer<'_>,
    start: &RecordingStart,
) -> Result<(), CodecError> {
    writer.u64(start.session);
    writer.u64(start.recording);
    writer.u64(start.origin_mono_ns);
    writer.u32(start.first_ordinal);
    writer.u32(start.prev_segment);
    writer.u32(start.prev_page);
    writer.bytes(&start.open_fact, FACT_BYTES_MAX)
}

/// Decodes a command: (request, command).
///
/// # Errors
/// See [`CodecError`]; never panics, whatever the bytes.
pub fn decode_command(message: &[u8]) -> Result<(u64, Command), CodecError> {
    let mut reader = Reader(message);
    let (kind, request) = read_header(&mut reader)?;
    let command = read_fields(&mut reader, kind)?;
    reader.end()?;
    Ok((request, command))
}

fn read_fields(reader: &mut Reader<'_>, kind: u16) -> Result<Command, CodecError> {
    Ok(match kind {
        SESSION_OPEN => Command::SessionOpen(SessionOpen {
            session: reader.u64()?,
            interface: [reader.u8()?, reader.u8()?],
            media_timeout_ms: reader.u32()?,
            beside: reader.u64()?,
            media: parts::read_media(reader)?,
        }),
        LEG_UPDATE => Command::LegUpdate(read_leg_update(reader)?),
        SESSION_RECORD => Command::SessionRecord {
            session: reader.u64()?,
            record: reader.bytes(RECORD_BYTES_MAX)?,
        },
        SESSION_CLOSE => Command::SessionClose {
            session: reader.u64()?,
        },
        RECORDING_START => Command::RecordingStart(RecordingStart {
            session: reader.u64()?,
            recording: reader.u64()?,
            origin_mono_ns: reader.u64()?,
            first_ordinal: reader.u32()?,
            prev_segment: reader.u32()?,
            prev_page: reader.u32()?,
            open_fact: reader.bytes(FACT_BYTES_MAX)?,
        }),
        RECORDING_PAUSE => Command::RecordingPause {
            session: reader.u64()?,
            recording: reader.u64()?,
        },
        RECORDING_RESUME => Command::RecordingResume {
            session: reader.u64()?,
            recording: reader.u64()?,
        },
        RECORDING_STOP => Command::RecordingStop {
            session: reader.u64()?,
            recording: reader.u64()?,
        },
        RECORDING_FACT => Command::RecordingFact {
            session: reader.u64()?,
            recording: reader.u64()?,
            kind: parts::fact_kind(reader)?,
            fact: reader.bytes(FACT_BYTES_MAX)?,
        },
        RECORDING_FINISH => Command::RecordingFinish {
            session: reader.u64()?,
            recording: reader.u64()?,
        },
        FORK_START => Command::ForkStart {
            session: reader.u64()?,
            target: reader.u64()?,
        },
        FORK_STATE => Command::ForkState {
            session: reader.u64()?,
            target: reader.u64()?,
            state: parts::fork_state(reader)?,
        },
        FORK_STOP => Command::ForkStop {
            session: reader.u64()?,
            target: reader.u64()?,
        },
        DIGIT_SEND => Command::DigitSend(read_digit(reader)?),
        SOURCE_LOAD => Command::SourceLoad(play::read_source(reader)?),
        PLAY_START => Command::PlayStart(play::read_play(reader)?),
        PLAY_STOP => Command::PlayStop {
            session: reader.u64()?,
            media: parts::media_index(reader)?,
            to: parts::side(reader)?,
        },
        SNAPSHOT => Command::Snapshot,
        DRAIN => Command::Drain,
        _ => return Err(CodecError::Invalid("command")),
    })
}

fn read_leg_update(reader: &mut Reader<'_>) -> Result<LegUpdate, CodecError> {
    Ok(LegUpdate {
        session: reader.u64()?,
        media: parts::media_index(reader)?,
        side: parts::side(reader)?,
        flags: {
            let flags = reader.u32()?;
            judge_flags(flags)?;
            flags
        },
        rtp: reader.option(Reader::address)?,
        rtcp: reader.option(Reader::address)?,
        signalling: reader.option(Reader::ip)?,
        payloads: {
            let count = reader.count(PAYLOADS_MAX)?;
            (0..count)
                .map(|_| parts::read_payload(reader))
                .collect::<Result<_, _>>()?
        },
        restore: reader.option(|reader| {
            Ok(LegRestore {
                learned_rtp: reader.option(Reader::address)?,
                learned_rtcp: reader.option(Reader::address)?,
                continuity: reader.option(parts::read_continuity)?,
            })
        })?,
    })
}
