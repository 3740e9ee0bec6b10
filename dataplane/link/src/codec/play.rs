//! What is played to parties, on the wire.

use super::CodecError;
use super::parts;
use super::wire::{Reader, Writer};
use crate::limits::{
    SOURCE_FRAME_BYTES_MAX, SOURCE_FRAMES_MAX, SOURCE_PIECE_BYTES_MAX, VOICES_MAX,
};
use crate::message::{Event, PlayStart, PlayVoice, SourceLoad};

pub(super) fn write_source(writer: &mut Writer<'_>, piece: &SourceLoad) -> Result<(), CodecError> {
    judge_source(piece)?;
    writer.u64(piece.source);
    writer.u8(piece.codec as u8);
    writer.u32(piece.clock_hz);
    writer.u32(piece.frame_us);
    writer.u32(piece.frames_total);
    writer.u32(piece.first);
    writer.count(piece.frames.len(), SOURCE_PIECE_BYTES_MAX)?;
    for frame in &piece.frames {
        writer.bytes(frame, SOURCE_FRAME_BYTES_MAX)?;
    }
    Ok(())
}

pub(super) fn read_source(reader: &mut Reader<'_>) -> Result<SourceLoad, CodecError> {
    let piece = SourceLoad {
        source: reader.u64()?,
        codec: parts::codec_id(reader)?,
        clock_hz: reader.u32()?,
        frame_us: reader.u32()?,
        frames_total: reader.u32()?,
        first: reader.u32()?,
        frames: {
            let count = reader.count(SOURCE_PIECE_BYTES_MAX)?;
            (0..count)
                .map(|_| reader.bytes(SOURCE_FRAME_BYTES_MAX))
                .collect::<Result<_, _>>()?
        },
    };
    judge_source(&piece)?;
    Ok(piece)
}

/// A piece lies within its source, and is no larger than a piece may be.
fn judge_source(piece: &SourceLoad) -> Result<(), CodecError> {
    if piece.bytes() > SOURCE_PIECE_BYTES_MAX {
        return Err(CodecError::TooLarge);
    }
    let total = usize::try_from(piece.frames_total).unwrap_or(usize::MAX);
    let first = usize::try_from(piece.first).unwrap_or(usize::MAX);
    let within = first.saturating_add(piece.frames.len()) <= total && total <= SOURCE_FRAMES_MAX;
    if within && !piece.frames.is_empty() {
        Ok(())
    } else {
        Err(CodecError::Invalid("piece of a source"))
    }
}

pub(super) fn write_play(writer: &mut Writer<'_>, play: &PlayStart) -> Result<(), CodecError> {
    parts::judge_media_index(play.media)?;
    writer.u64(play.session);
    writer.u8(play.media);
    writer.u8(play.to as u8);
    writer.u64(play.play);
    writer.u8(play.mode as u8);
    writer.u32(play.every_ms);
    writer.u16(play.packet_ms);
    writer.u32(play.ssrc);
    writer.count(play.voices.len(), VOICES_MAX)?;
    for voice in &play.voices {
        parts::judge_payload_type(voice.pt)?;
        writer.u64(voice.source);
        writer.u8(voice.pt);
    }
    Ok(())
}

pub(super) fn read_play(reader: &mut Reader<'_>) -> Result<PlayStart, CodecError> {
    Ok(PlayStart {
        session: reader.u64()?,
        media: parts::media_index(reader)?,
        to: parts::side(reader)?,
        play: reader.u64()?,
        mode: parts::play_mode(reader)?,
        every_ms: reader.u32()?,
        packet_ms: reader.u16()?,
        ssrc: reader.u32()?,
        voices: {
            let count = reader.count(VOICES_MAX)?;
            (0..count)
                .map(|_| {
                    let voice = PlayVoice {
                        source: reader.u64()?,
                        pt: reader.u8()?,
                    };
                    parts::judge_payload_type(voice.pt)?;
                    Ok(voice)
                })
                .collect::<Result<_, CodecError>>()?
        },
    })
}

pub(super) fn read_played(reader: &mut Reader<'_>) -> Result<Event, CodecError> {
    Ok(Event::Played {
        session: reader.u64()?,
        media: parts::media_index(reader)?,
        to: parts::side(reader)?,
        play: reader.u64()?,
        from_mono_ns: reader.u64()?,
        to_mono_ns: reader.u64()?,
        packets: reader.u32()?,
        played_ms: reader.u32()?,
        whole: reader.boolean()?,
    })
}
