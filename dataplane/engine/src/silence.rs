//! What a muted side is heard as.

use trunkline_rtp::{HeaderMut, RtpHeader};

use crate::spec::Codec;

/// The unit in which frames of Opus are measured, µs.
pub(crate) const OPUS_UNIT_US: u64 = 2_500;
/// Frame sizes of Opus CELT-only configurations 28 to 31 (RFC 6716 table 2), in units of 2.5 ms.
const OPUS_CELT_UNITS: [usize; 4] = [1, 2, 4, 8];
/// A CELT frame whose silence flag is set.
const OPUS_SILENCE: [u8; 2] = [0xff, 0xfe];

/// Replaces the payload by silence of the same duration; gives the packet's new length, `None`
/// where the codec's silence is not known or does not fit the buffer.
pub(crate) fn silence(
    codec: Codec,
    buffer: &mut [u8],
    header: &RtpHeader,
    length: usize,
) -> Option<usize> {
    let range = header.payload();
    if range.is_empty() {
        return Some(length);
    }
    match codec {
        Codec::ComfortNoise => replace(buffer, header, &[0x7f]),
        Codec::Opus => {
            let mut packet = [0; 2 + 2 * 48];
            let bytes = opus_silence(&buffer[range], &mut packet)?;
            replace(buffer, header, &packet[..bytes])
        }
        _ => {
            buffer[range].fill(octet_of(codec)?);
            Some(length)
        }
    }
}

/// The octet that a payload of silence is made of, where there is such.
pub(crate) fn octet_of(codec: Codec) -> Option<u8> {
    match codec {
        Codec::Pcmu => Some(0xff),
        Codec::Pcma => Some(0xd5),
        Codec::L16 => Some(0x00),
        Codec::G722 => Some(G722_SILENCE),
        Codec::ComfortNoise | Codec::Opus | Codec::TelephoneEvent | Codec::Other => None,
    }
}

/// Smallest differences in both sub-bands (ITU-T G.722, tables 7 and 8): whatever went before, a
/// decoder is below -60 dB of full scale within 20 ms.
const G722_SILENCE: u8 = 0xff;

/// Puts another payload in place of the packet's, without padding.
fn replace(buffer: &mut [u8], header: &RtpHeader, payload: &[u8]) -> Option<usize> {
    let start = header.payload().start;
    buffer
        .get_mut(start..start + payload.len())?
        .copy_from_slice(payload);
    HeaderMut::of(buffer)?.clear_padding();
    Some(start + payload.len())
}

/// An Opus packet of silent CELT frames as long as `payload` (RFC 6716 section 3).
fn opus_silence(payload: &[u8], out: &mut [u8; 2 + 2 * 48]) -> Option<usize> {
    let units = opus_units(payload)?;
    let size = (0..4)
        .rev()
        .find(|&size| units.is_multiple_of(OPUS_CELT_UNITS[size]))?;
    let frames = units / OPUS_CELT_UNITS[size];
    let toc = (28 + size as u8) << 3 | payload[0] & 0x04;
    let start = if frames == 1 {
        out[0] = toc;
        1
    } else {
        // Code 3: a counted number of frames of equal size.
        out[0] = toc | 3;
        out[1] = u8::try_from(frames).ok().filter(|&count| count <= 48)?;
        2
    };
    let end = start + 2 * frames;
    out[start..end].as_chunks_mut::<2>().0.fill(OPUS_SILENCE);
    Some(end)
}

/// Duration of an Opus packet in units of 2.5 ms, at most 120 ms.
pub(crate) fn opus_units(payload: &[u8]) -> Option<usize> {
    let toc = *payload.first()?;
    let configuration = usize::from(toc >> 3);
    let frame_units = match configuration {
        0..=11 => [4, 8, 16, 24][configuration % 4],
        12..=15 => [4, 8][configuration % 2],
        _ => OPUS_CELT_UNITS[configuration % 4],
    };
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => usize::from(*payload.get(1)? & 0x3f),
    };
    let units = frames * frame_units;
    (1..=48).contains(&units).then_some(units)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x80, 0, 0, 1, 0, 0, 0, 160, 0, 0, 0, 9];
        bytes.extend(payload);
        bytes
    }

    fn muted(codec: Codec, payload: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = packet(payload);
        let length = bytes.len();
        let header = RtpHeader::parse(&bytes).unwrap();
        bytes.resize(length + 64, 0);
        let new = silence(codec, &mut bytes, &header, length)?;
        assert_eq!(bytes[..12], packet(&[])[..]);
        Some(bytes[12..new].to_vec())
    }

    #[test]
    fn sample_codecs_keep_their_length() {
        for (codec, byte) in [(Codec::Pcmu, 0xff), (Codec::Pcma, 0xd5), (Codec::L16, 0)] {
            assert_eq!(muted(codec, &[3; 160]), Some(vec![byte; 160]));
            assert_eq!(muted(codec, &[]), Some(vec![]));
        }
        assert_eq!(
            muted(Codec::G722, &[3; 160]).map(|payload| payload.len()),
            Some(160)
        );
        assert_eq!(muted(Codec::ComfortNoise, &[20, 1, 2]), Some(vec![0x7f]));
    }

    #[test]
    fn what_has_no_silence_is_withheld() {
        assert_eq!(muted(Codec::TelephoneEvent, &[1, 10, 0, 160]), None);
        assert_eq!(muted(Codec::Other, &[1]), None);
    }

    #[test]
    fn opus_keeps_its_duration_and_channels() {
        // SILK wideband 20 ms mono; CELT 20 ms stereo; two SILK 60 ms frames; DTX of 20 ms.
        assert_eq!(
            muted(Codec::Opus, &[0x48, 1, 2, 3]),
            Some(vec![0xf8, 0xff, 0xfe])
        );
        assert_eq!(
            muted(Codec::Opus, &[0xfc, 9, 9]),
            Some(vec![0xfc, 0xff, 0xfe])
        );
        let six = [vec![0xfb, 6], [0xff, 0xfe].repeat(6)].concat();
        assert_eq!(muted(Codec::Opus, &[0x59, 1, 2]), Some(six));
        assert_eq!(muted(Codec::Opus, &[0x48]), Some(vec![0xf8, 0xff, 0xfe]));
        // Three 10 ms frames.
        let three = [vec![0xf3, 3], [0xff, 0xfe].repeat(3)].concat();
        assert_eq!(muted(Codec::Opus, &[0x43, 3, 1, 2, 3]), Some(three));
        // More than 120 ms, or no count at all.
        assert_eq!(muted(Codec::Opus, &[0x5b, 3, 0]), None);
        assert_eq!(muted(Codec::Opus, &[0x5b]), None);
    }

    #[test]
    fn padding_goes_with_the_payload() {
        let mut bytes = packet(&[0x48, 1, 0, 0, 3]);
        bytes[0] |= 0x20;
        let header = RtpHeader::parse(&bytes).unwrap();
        let length = bytes.len();
        bytes.resize(length + 64, 0);
        let new = silence(Codec::Opus, &mut bytes, &header, length).unwrap();
        assert_eq!(bytes[12..new], [0xf8, 0xff, 0xfe]);
        assert_eq!(RtpHeader::parse(&bytes[..new]).unwrap().payload(), 12..15);
    }
}
