//! What the dataplane keeps for us of a session: serialised, compressed, small enough for the link.

use serde::Serialize;
use serde::de::DeserializeOwned;
use trunkline_link::limits::RECORD_BYTES_MAX;

/// Written at every change of a call: the time counts.
const QUICK: u8 = 1;
/// Several times as slow, for what does not fit otherwise.
const TIGHT: u8 = 2;
const TIGHT_LEVEL: u8 = 6;
/// A record never unpacks to more than this.
const UNPACKED_MAX: usize = 256 * 1024;

/// A record of this version; `None` when it is too large.
pub fn pack(version: u8, saved: &impl Serialize) -> Option<Vec<u8>> {
    let json = serde_json::to_vec(saved).ok()?;
    let framed = |method, packed: Vec<u8>| [vec![version, method], packed].concat();
    let quick = framed(QUICK, lz4_flex::compress_prepend_size(&json));
    if quick.len() <= RECORD_BYTES_MAX {
        return Some(quick);
    }
    let packed = miniz_oxide::deflate::compress_to_vec(&json, TIGHT_LEVEL);
    let tight = framed(TIGHT, packed);
    (tight.len() <= RECORD_BYTES_MAX).then_some(tight)
}

/// What a record of this version holds.
pub fn unpack<T: DeserializeOwned>(wanted: u8, record: &[u8]) -> Option<T> {
    let [version, method, packed @ ..] = record else {
        return None;
    };
    if *version != wanted {
        return None;
    }
    let json = match *method {
        QUICK => {
            let (length, _) = lz4_flex::block::uncompressed_size(packed).ok()?;
            let fits = length <= UNPACKED_MAX;
            fits.then(|| lz4_flex::decompress_size_prepended(packed).ok())??
        }
        TIGHT => miniz_oxide::inflate::decompress_to_vec_with_limit(packed, UNPACKED_MAX).ok()?,
        _ => return None,
    };
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: u8 = 4;

    #[test]
    fn what_does_not_fit_is_packed_tighter_and_nonsense_is_refused() {
        let small = "ab".repeat(80);
        let record = pack(VERSION, &small).expect("it fits");
        assert_eq!(record[..2], [VERSION, QUICK]);
        assert_eq!(unpack::<String>(VERSION, &record), Some(small));
        let mut state = 1_u32;
        let mut digits = |count| -> String {
            let digit = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                char::from(b'0' + (state >> 24) as u8 % 10)
            };
            std::iter::repeat_with(digit).take(count).collect()
        };
        let large = digits(15_000);
        let record = pack(VERSION, &large).expect("it fits");
        assert_eq!(record[..2], [VERSION, TIGHT]);
        assert_eq!(unpack::<String>(VERSION, &record), Some(large));
        assert!(pack(VERSION, &digits(100_000)).is_none());
        let bomb = [&[VERSION, QUICK][..], &u32::MAX.to_le_bytes(), &[0; 8]].concat();
        for record in [
            &b""[..],
            &[VERSION],
            &[VERSION, 9, 1],
            &[3, QUICK, 1],
            &bomb,
        ] {
            assert!(unpack::<String>(VERSION, record).is_none(), "{record:?}");
        }
    }
}
