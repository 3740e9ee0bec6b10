//! Counts of streams in the record that outlives us: drops by the number of their reason.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use trunkline_link::message::DropReason;
use trunkline_sinks::verdict::StreamCounts;

#[derive(Serialize, Deserialize)]
struct Kept {
    from_callee: bool,
    media: u8,
    ssrc: u32,
    /// Expected, written, lost, duplicates, reordered, bytes, covered_ms.
    totals: [u64; 7],
    dropped: Vec<(usize, u64)>,
    ends: [Option<u16>; 2],
}

impl Kept {
    fn of(counts: &StreamCounts) -> Self {
        let number = |name: &str| DropReason::ALL.iter().position(|one| one.name() == name);
        Self {
            from_callee: counts.from_callee,
            media: counts.media,
            ssrc: counts.ssrc,
            totals: [
                counts.expected,
                counts.written,
                counts.lost,
                counts.duplicates,
                counts.reordered,
                counts.bytes,
                counts.covered_ms,
            ],
            dropped: counts
                .dropped
                .iter()
                .filter(|(_, count)| *count > 0)
                .filter_map(|(name, count)| Some((number(name)?, *count)))
                .collect(),
            ends: [counts.first_sequence, counts.last_sequence],
        }
    }

    fn counts(self) -> StreamCounts {
        let [
            expected,
            written,
            lost,
            duplicates,
            reordered,
            bytes,
            covered_ms,
        ] = self.totals;
        let [first_sequence, last_sequence] = self.ends;
        let name = |number: usize| DropReason::ALL.get(number).map(|reason| reason.name());
        StreamCounts {
            from_callee: self.from_callee,
            media: self.media,
            ssrc: self.ssrc,
            expected,
            written,
            lost,
            dropped: self
                .dropped
                .into_iter()
                .filter_map(|(number, count)| Some((name(number)?, count)))
                .collect(),
            duplicates,
            reordered,
            bytes,
            covered_ms,
            first_sequence,
            last_sequence,
        }
    }
}

pub fn serialize<S: Serializer>(
    streams: &[StreamCounts],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let kept: Vec<Kept> = streams.iter().map(Kept::of).collect();
    kept.serialize(serializer)
}

pub fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<StreamCounts>, D::Error> {
    let kept = Vec::<Kept>::deserialize(deserializer)?;
    Ok(kept.into_iter().map(Kept::counts).collect())
}
