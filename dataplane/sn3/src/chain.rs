//! The hash chain over a recording's sealed extents: one BLAKE3 value (a *link*) at the end of each.
//!
//! ```text
//! link(n) = BLAKE3( link(n-1) | extent n without its checksum field and without its link )
//! ```
//! Before the first extent the link is 32 zeros. The last link is the chain's *head*: whoever keeps it
//! elsewhere (receipt, CDR, webhook) can prove that no byte of the recording was changed since.

use std::collections::HashMap;

use crate::extent::{ExtentHeader, checksum, extent_flags};
use crate::layout::EXTENT_HEADER;

/// A value of the chain.
pub type Link = [u8; LINK_BYTES];
/// Bytes of a link.
pub const LINK_BYTES: usize = 32;
/// What stands before a recording's first extent.
pub const START: Link = [0; LINK_BYTES];

/// The link of a sealed, chained extent of `header.bytes()` bytes that follows `previous`.
#[must_use]
pub fn link(previous: &Link, extent: &[u8]) -> Link {
    let end = extent.len().saturating_sub(LINK_BYTES);
    // In one piece it is hashed several blocks at a time, which is worth the copy.
    let mut bytes = Vec::with_capacity(LINK_BYTES + extent.len());
    bytes.extend_from_slice(previous);
    bytes.extend_from_slice(&extent[..12]);
    bytes.extend_from_slice(extent.get(16..end).unwrap_or(&[]));
    *blake3::hash(&bytes).as_bytes()
}

/// The link stored at the end of an extent; `None` when it has none.
#[must_use]
pub fn stored(extent: &[u8], header: &ExtentHeader) -> Option<Link> {
    if !header.has(extent_flags::CHAINED) || header.has(extent_flags::ERASED) {
        return None;
    }
    extent.get(..header.bytes())?.last_chunk().copied()
}

/// Puts the link that follows `previous` into a sealed extent, and the checksum that belongs to it.
pub(crate) fn relink(extent: &mut [u8], header: &mut ExtentHeader, previous: &Link) -> Link {
    let value = link(previous, extent);
    let end = extent.len() - LINK_BYTES;
    extent[end..].copy_from_slice(&value);
    header.checksum = checksum(extent);
    extent[..EXTENT_HEADER].copy_from_slice(&header.encode());
    value
}

/// Follows the chains of many recordings, extent by extent in order.
#[derive(Debug, Default)]
pub struct Follower {
    heads: HashMap<u64, (u32, Option<Link>)>,
}

/// What an extent is to the chain of its recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It follows from the extent before it.
    Follows,
    /// It has a link, but what it should follow from is not known here.
    NotKnown,
    /// It has none.
    Outside,
    /// It was changed, or an extent before it was changed, taken away or put in.
    Broken,
}

impl Follower {
    /// What an extent's link has to follow from: `before` looks at the place that its header names,
    /// where the extent before it was not the last one seen.
    pub(crate) fn previous(
        &self,
        header: &ExtentHeader,
        before: impl FnOnce() -> Option<Link>,
    ) -> Option<Link> {
        // What the disk refused has ordinals too, and the chain leads past it.
        let follows =
            |ordinal: u32| ordinal.checked_add(1) == Some(header.ordinal) || header.dropped > 0;
        match self.heads.get(&header.recording) {
            _ if header.ordinal == 0 => Some(START),
            Some((ordinal, link)) if follows(*ordinal) => *link,
            _ => before(),
        }
    }

    /// An extent was seen; `link` is what it has.
    pub(crate) fn note(&mut self, header: &ExtentHeader, link: Option<Link>) {
        self.heads.insert(header.recording, (header.ordinal, link));
    }

    /// The next whole extent of its recording; `before` gives the link at the place that its header names.
    pub fn step(
        &mut self,
        extent: &[u8],
        header: &ExtentHeader,
        before: impl FnOnce() -> Option<Link>,
    ) -> Step {
        let value = stored(extent, header);
        let previous = self.previous(header, before);
        self.note(header, value);
        let Some(value) = value else {
            return Step::Outside;
        };
        match previous {
            None => Step::NotKnown,
            Some(previous) if link(&previous, &extent[..header.bytes()]) == value => Step::Follows,
            Some(_) => Step::Broken,
        }
    }

    /// The link of a recording's last extent so far.
    #[must_use]
    pub fn head(&self, recording: u64) -> Option<Link> {
        self.heads.get(&recording).and_then(|(_, link)| *link)
    }
}

/// A link in lower-case hexadecimal digits, as receipts show it.
#[must_use]
pub fn to_hex(link: &Link) -> String {
    blake3::Hash::from_bytes(*link).to_hex().to_string()
}

/// Reads what [`to_hex`] wrote.
#[must_use]
pub fn from_hex(text: &str) -> Option<Link> {
    blake3::Hash::from_hex(text)
        .ok()
        .map(|hash| *hash.as_bytes())
}
