//! Source descriptions, BYE and APP (RFC 3550 sections 6.5 to 6.7).

use super::RtcpHeader;
use crate::u32_at;

/// SDES: all chunks were walked once and fit.
#[derive(Debug, Clone, Copy)]
pub struct SourceDescription<'a> {
    body: &'a [u8],
    count: usize,
}

/// Bytes of the chunk at the start of `bytes` (SSRC, items, end, padding to a word).
pub(super) fn chunk_bytes(bytes: &[u8]) -> Option<usize> {
    let mut at = 4;
    loop {
        match *bytes.get(at)? {
            0 => break,
            _ => at += 2 + usize::from(*bytes.get(at + 1)?),
        }
    }
    let end = (at + 1).next_multiple_of(4);
    (end <= bytes.len()).then_some(end)
}

impl<'a> SourceDescription<'a> {
    pub(super) fn view(header: &RtcpHeader, body: &'a [u8]) -> Option<Self> {
        let count = usize::from(header.count);
        let mut rest = body;
        for _ in 0..count {
            rest = &rest[chunk_bytes(rest)?..];
        }
        Some(Self { body, count })
    }

    /// The chunks, one a source.
    pub fn chunks(&self) -> impl Iterator<Item = SdesChunk<'a>> + 'a {
        let mut rest = self.body;
        (0..self.count).map_while(move |_| {
            let (chunk, after) = rest.split_at_checked(chunk_bytes(rest)?)?;
            rest = after;
            Some(SdesChunk(chunk))
        })
    }
}

/// What is said of one source.
#[derive(Debug, Clone, Copy)]
pub struct SdesChunk<'a>(&'a [u8]);

/// One item of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SdesItem<'a> {
    /// 1 = CNAME, 2 = NAME, 3 = EMAIL, 4 = PHONE, 5 = LOC, 6 = TOOL, 7 = NOTE, 8 = PRIV.
    pub kind: u8,
    /// Its text, as sent.
    pub text: &'a [u8],
}

impl<'a> SdesChunk<'a> {
    /// SSRC.
    #[must_use]
    pub fn ssrc(&self) -> u32 {
        u32_at(self.0, 0)
    }

    /// Its items.
    pub fn items(&self) -> impl Iterator<Item = SdesItem<'a>> + 'a {
        let mut rest = &self.0[4..];
        std::iter::from_fn(move || {
            let [kind, length, after @ ..] = rest else {
                return None;
            };
            if *kind == 0 {
                return None;
            }
            let (text, after) = after.split_at_checked(usize::from(*length))?;
            rest = after;
            Some(SdesItem { kind: *kind, text })
        })
    }
}

/// BYE.
#[derive(Debug, Clone, Copy)]
pub struct Goodbye<'a> {
    body: &'a [u8],
    count: usize,
}

impl<'a> Goodbye<'a> {
    pub(super) fn view(header: &RtcpHeader, body: &'a [u8]) -> Option<Self> {
        let count = usize::from(header.count);
        let reason = body.get(4 * count..)?;
        let fits = reason
            .first()
            .is_none_or(|&length| reason.len() > usize::from(length));
        fits.then_some(Self { body, count })
    }

    /// The sources that leave.
    pub fn ssrcs(&self) -> impl Iterator<Item = u32> + 'a {
        let body = self.body;
        (0..self.count).map(move |index| u32_at(body, 4 * index))
    }

    /// Why, as sent; empty when not said.
    #[must_use]
    pub fn reason(&self) -> &'a [u8] {
        match &self.body[4 * self.count..] {
            [length, text @ ..] => &text[..usize::from(*length)],
            [] => &[],
        }
    }
}

/// APP.
#[derive(Debug, Clone, Copy)]
pub struct App<'a> {
    body: &'a [u8],
    subtype: u8,
}

impl<'a> App<'a> {
    pub(super) fn view(header: &RtcpHeader, body: &'a [u8]) -> Option<Self> {
        (body.len() >= 8).then_some(Self {
            body,
            subtype: header.count,
        })
    }

    /// SSRC.
    #[must_use]
    pub fn ssrc(&self) -> u32 {
        u32_at(self.body, 0)
    }

    /// Four ASCII characters.
    #[must_use]
    pub fn name(&self) -> &'a [u8] {
        &self.body[4..8]
    }

    /// Subtype.
    #[must_use]
    pub fn subtype(&self) -> u8 {
        self.subtype
    }

    /// Data.
    #[must_use]
    pub fn data(&self) -> &'a [u8] {
        &self.body[8..]
    }
}
