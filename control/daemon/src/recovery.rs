//! After a dataplane's death: what it had captured and not yet written is written by us.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use tracing::{info, warn};
use trunkline_link::pool::PoolReader;
use trunkline_sinks::Timestamp;
use trunkline_sinks::catalog::count_recording;
use trunkline_sinks::verdict::StreamCounts;
use trunkline_sn3::Keys;
use trunkline_sn3::chain::START;
use trunkline_sn3::record::ClockTriple;
use trunkline_sn3::recover::{Image, LastPlace, Rescue, last_places, link_of, rescue};

use crate::b2bua::RecoveredPlace;
use crate::clock::monotonic_ns;

/// Counts recordings up to these places, from their frames; none: they cannot be counted. `tell` is told
/// of each, and says whether anybody still listens.
pub fn recount(
    segments: &Path,
    places: HashMap<u64, RecoveredPlace>,
    keys: &Keys,
    tell: impl Fn(u64, Vec<StreamCounts>) -> bool,
) {
    for (number, place) in places {
        let last = (place.last_segment, place.last_page);
        let streams = count_recording(segments, number, last, keys).unwrap_or_else(|error| {
            warn!(number, %error, "a recording cannot be recounted");
            Vec::new()
        });
        if !tell(number, streams) {
            return;
        }
    }
}

/// Rescues the pool's extents into segments of their own; gives the place of the last extent of each
/// recording in `live`. What the dataplane wrote without having told of it counts too.
pub fn rescue_pool(
    pool: &PoolReader,
    segments: &Path,
    live: &BTreeSet<u64>,
    hash_chain: bool,
    keys: Keys,
) -> HashMap<u64, RecoveredPlace> {
    let mut images = Vec::new();
    for (index, meta) in pool.unfinished() {
        let mut bytes = Vec::new();
        if pool.copy(index, &mut bytes).is_some() {
            images.push(Image {
                worker: meta.worker,
                bytes,
            });
        }
    }
    let utc_ns = u64::try_from(Timestamp::now().0)
        .unwrap_or(0)
        .saturating_mul(1_000_000);
    let clock = ClockTriple {
        mono_ns: monotonic_ns(),
        utc_ns,
        ..ClockTriple::default()
    };
    let how = Rescue {
        epoch: u64::from(pool.pid()),
        clock,
        chained: hash_chain,
        keys,
    };
    match rescue(segments, &images, &how) {
        Ok(rescued) => {
            info!(
                extents = rescued.len(),
                "rescued what the dataplane had captured"
            );
        }
        Err(error) => warn!(%error, "what the dataplane had captured cannot be rescued"),
    }
    let places = last_places(segments, live).unwrap_or_else(|error| {
        warn!(%error, "segments cannot be listed");
        BTreeMap::new()
    });
    let place = |(recording, last): (u64, LastPlace)| {
        let place = RecoveredPlace {
            next_ordinal: last.next_ordinal,
            last_segment: last.segment,
            last_page: last.page,
            chain_head: link_of(segments, last.segment, last.page).unwrap_or(START),
        };
        (recording, place)
    };
    places.into_iter().map(place).collect()
}
