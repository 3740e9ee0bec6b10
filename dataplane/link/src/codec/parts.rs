//! Parts that several messages share: enums, payloads, m-lines, receipts.

use super::CodecError;
use super::wire::{Reader, Writer};
use crate::limits::{FORK_STREAMS_MAX, MEDIA_MAX, STREAMS_MAX};
use crate::message::{
    AlarmCode, CodecId, Continuity, DropReason, FactKind, FailReason, ForkState, ForkStream,
    MediaKind, MediaOpen, Payload, PlayMode, RecordingPhase, Side, StreamReceipt,
};

/// Declares the reader of an enum from its values; anything else is an error named `$name`.
macro_rules! enum_reader {
    ($function:ident, $type:ident, $width:ident, $name:literal, $($variant:ident),*) => {
        pub(super) fn $function(reader: &mut Reader<'_>) -> Result<$type, CodecError> {
            let value = reader.$width()?;
            $(if value == $type::$variant as $width { return Ok($type::$variant); })*
            Err(CodecError::Invalid($name))
        }
    };
}

enum_reader!(side, Side, u8, "side", Caller, Callee);
enum_reader!(
    media_kind,
    MediaKind,
    u8,
    "media kind",
    Audio,
    OpaqueRtp,
    OpaqueDatagram
);
enum_reader!(
    codec_id,
    CodecId,
    u8,
    "codec",
    Other,
    Pcmu,
    Pcma,
    G722,
    Opus,
    L16,
    TelephoneEvent,
    ComfortNoise,
    G729,
    Gsm
);
enum_reader!(
    fact_kind,
    FactKind,
    u8,
    "fact kind",
    CallOpen,
    CallChange,
    CallClose
);
enum_reader!(
    phase,
    RecordingPhase,
    u8,
    "recording phase",
    Running,
    Paused,
    Stopped
);
enum_reader!(
    fork_state,
    ForkState,
    u8,
    "fork state",
    Running,
    Paused,
    Silenced
);
enum_reader!(play_mode, PlayMode, u8, "play mode", Insert, Mix);
enum_reader!(
    fail_reason,
    FailReason,
    u16,
    "failure reason",
    NotFound,
    NoPorts,
    NoCapacity,
    Invalid,
    WrongState,
    PortBusy,
    Draining,
    Internal
);
enum_reader!(
    alarm,
    AlarmCode,
    u16,
    "alarm",
    CaptureDisk,
    CaptureNoExtent,
    PortsShort
);

/// An m-line's index.
pub(super) fn media_index(reader: &mut Reader<'_>) -> Result<u8, CodecError> {
    let index = reader.u8()?;
    judge_media_index(index)?;
    Ok(index)
}

pub(super) fn judge_media_index(index: u8) -> Result<(), CodecError> {
    if usize::from(index) < MEDIA_MAX {
        Ok(())
    } else {
        Err(CodecError::Invalid("m-line"))
    }
}

pub(super) fn write_media(writer: &mut Writer<'_>, media: &[MediaOpen]) -> Result<(), CodecError> {
    writer.count(media.len(), MEDIA_MAX)?;
    for line in media {
        writer.u8(line.kind as u8);
        writer.u16(line.ports[0]);
        writer.u16(line.ports[1]);
    }
    Ok(())
}

pub(super) fn read_media(reader: &mut Reader<'_>) -> Result<Vec<MediaOpen>, CodecError> {
    let count = reader.count(MEDIA_MAX)?;
    (0..count)
        .map(|_| {
            Ok(MediaOpen {
                kind: media_kind(reader)?,
                ports: [reader.u16()?, reader.u16()?],
            })
        })
        .collect()
}

pub(super) fn write_payload(writer: &mut Writer<'_>, payload: &Payload) -> Result<(), CodecError> {
    judge_payload_type(payload.pt)?;
    judge_payload_type(payload.to_pt)?;
    writer.u8(payload.pt);
    writer.u8(payload.to_pt);
    writer.u8(payload.codec as u8);
    writer.u32(payload.clock_hz);
    Ok(())
}

pub(super) fn read_payload(reader: &mut Reader<'_>) -> Result<Payload, CodecError> {
    let payload = Payload {
        pt: reader.u8()?,
        to_pt: reader.u8()?,
        codec: codec_id(reader)?,
        clock_hz: reader.u32()?,
    };
    judge_payload_type(payload.pt)?;
    judge_payload_type(payload.to_pt)?;
    Ok(payload)
}

pub(super) fn judge_payload_type(value: u8) -> Result<(), CodecError> {
    if value <= 127 {
        Ok(())
    } else {
        Err(CodecError::Invalid("payload type"))
    }
}

pub(super) fn write_continuity(writer: &mut Writer<'_>, continuity: &Continuity) {
    writer.u32(continuity.ssrc_in);
    writer.u32(continuity.ssrc_out);
    writer.u16(continuity.sequence_offset);
    writer.u32(continuity.timestamp_offset);
}

pub(super) fn read_continuity(reader: &mut Reader<'_>) -> Result<Continuity, CodecError> {
    Ok(Continuity {
        ssrc_in: reader.u32()?,
        ssrc_out: reader.u32()?,
        sequence_offset: reader.u16()?,
        timestamp_offset: reader.u32()?,
    })
}

pub(super) fn write_streams(
    writer: &mut Writer<'_>,
    streams: &[StreamReceipt],
) -> Result<(), CodecError> {
    writer.count(streams.len(), STREAMS_MAX)?;
    for stream in streams {
        judge_media_index(stream.media)?;
        writer.u8(stream.side as u8);
        writer.u8(stream.media);
        writer.u32(stream.ssrc);
        writer.u64(stream.expected);
        writer.u64(stream.written);
        writer.u64(stream.lost);
        for dropped in stream.dropped {
            writer.u64(dropped);
        }
        writer.u64(stream.duplicates);
        writer.u64(stream.reordered);
        writer.u64(stream.bytes);
        writer.u64(stream.first_ns);
        writer.u64(stream.last_ns);
        writer.u64(stream.covered_ns);
        writer.u16(stream.first_sequence);
    }
    Ok(())
}

pub(super) fn write_fork_streams(
    writer: &mut Writer<'_>,
    streams: &[ForkStream],
) -> Result<(), CodecError> {
    writer.count(streams.len(), FORK_STREAMS_MAX)?;
    for stream in streams {
        judge_media_index(stream.media)?;
        writer.u8(stream.media);
        writer.u8(stream.side as u8);
        writer.u64(stream.packets);
        writer.u64(stream.payload_bytes);
        writer.u64(stream.withheld);
    }
    Ok(())
}

pub(super) fn read_fork_streams(reader: &mut Reader<'_>) -> Result<Vec<ForkStream>, CodecError> {
    let count = reader.count(FORK_STREAMS_MAX)?;
    let read = |_| {
        Ok(ForkStream {
            media: media_index(reader)?,
            side: side(reader)?,
            packets: reader.u64()?,
            payload_bytes: reader.u64()?,
            withheld: reader.u64()?,
        })
    };
    (0..count).map(read).collect()
}

pub(super) fn read_streams(reader: &mut Reader<'_>) -> Result<Vec<StreamReceipt>, CodecError> {
    let count = reader.count(STREAMS_MAX)?;
    (0..count).map(|_| read_stream(reader)).collect()
}

fn read_stream(reader: &mut Reader<'_>) -> Result<StreamReceipt, CodecError> {
    let mut stream = StreamReceipt {
        side: side(reader)?,
        media: media_index(reader)?,
        ssrc: reader.u32()?,
        expected: reader.u64()?,
        written: reader.u64()?,
        lost: reader.u64()?,
        dropped: [0; DropReason::ALL.len()],
        duplicates: 0,
        reordered: 0,
        bytes: 0,
        first_ns: 0,
        last_ns: 0,
        covered_ns: 0,
        first_sequence: 0,
    };
    for dropped in &mut stream.dropped {
        *dropped = reader.u64()?;
    }
    stream.duplicates = reader.u64()?;
    stream.reordered = reader.u64()?;
    stream.bytes = reader.u64()?;
    stream.first_ns = reader.u64()?;
    stream.last_ns = reader.u64()?;
    stream.covered_ns = reader.u64()?;
    stream.first_sequence = reader.u16()?;
    Ok(stream)
}
