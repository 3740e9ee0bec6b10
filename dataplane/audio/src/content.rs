//! What a packet holds: sound of some format, an event, comfort noise.

use crate::guess::Shape;
use trunkline_codec::{CodecKind, Format, telephone_event::EventReport};
use trunkline_sn3::Frame;
use trunkline_sn3::capture::CaptureFacts;

/// Payload types and m-lines whose meaning is remembered.
const MEDIA_CACHED: usize = 4;

/// What a packet holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    Sound(Format),
    Event,
    Noise,
    /// A payload type that means nothing here.
    Unknown,
    /// No payload: a keep-alive.
    Empty,
}

/// What is assumed of one run where the capture says nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Assumed {
    pub(crate) format: Format,
    /// Clock rates that the run's timestamps contradict: (declared format's codec, true clock).
    pub(crate) clock: Option<(CodecKind, u32)>,
    pub(crate) commonest_bytes: usize,
}

impl Assumed {
    pub(crate) fn new(format: Format, shape: &Shape) -> Self {
        Self {
            format,
            clock: None,
            commonest_bytes: shape.commonest_bytes(),
        }
    }
}

/// Looks payload types up in the facts, with a memory.
pub(crate) struct Contents<'a> {
    facts: &'a CaptureFacts,
    /// Times at which facts change, ns.
    changes: Vec<u64>,
    epoch: usize,
    cache: Vec<Option<(usize, Content)>>,
}

impl<'a> Contents<'a> {
    pub(crate) fn new(facts: &'a CaptureFacts) -> Self {
        let changes = facts.changes.iter().map(|(at, _)| *at).collect();
        Self {
            facts,
            changes,
            epoch: 0,
            cache: vec![None; 2 * MEDIA_CACHED * 128],
        }
    }

    /// What the capture itself says of the packet; `None` when it says nothing.
    pub(crate) fn described(&mut self, frame: &Frame<'_>) -> Option<Content> {
        let pt = frame.pt?;
        while self
            .changes
            .get(self.epoch)
            .is_some_and(|&at| at <= frame.wall_ns)
        {
            self.epoch += 1;
        }
        let index = (usize::from(frame.side & 1) * MEDIA_CACHED + usize::from(frame.media)) * 128
            + usize::from(pt & 0x7F);
        let cached = usize::from(frame.media) < MEDIA_CACHED;
        if cached
            && let Some((epoch, content)) = self.cache[index]
            && epoch == self.epoch
        {
            return Some(content);
        }
        let content = self.look_up(frame, pt)?;
        if cached {
            self.cache[index] = Some((self.epoch, content));
        }
        Some(content)
    }

    fn look_up(&self, frame: &Frame<'_>, pt: u8) -> Option<Content> {
        let side = frame.side & 1;
        if let Some(payload) = self.facts.payload_at(side, frame.media, pt, frame.wall_ns) {
            let format = Format::from_sdp(&payload.codec, payload.clock_hz, payload.channels);
            return Some(format.map_or(Content::Unknown, |format| {
                of_format(format.with_parameters(&payload.fmtp))
            }));
        }
        CodecKind::from_static_payload_type(pt).map(of_format)
    }

    /// What the packet holds, by description or else by assumption.
    pub(crate) fn of(&mut self, frame: &Frame<'_>, assumed: &Assumed) -> Content {
        if frame.payload.is_empty() {
            return Content::Empty;
        }
        match self.described(frame) {
            Some(Content::Sound(format)) => match assumed.clock {
                Some((kind, clock_hz)) if kind == format.kind => {
                    Content::Sound(Format { clock_hz, ..format })
                }
                _ => Content::Sound(format),
            },
            Some(content) => content,
            None => by_shape(&frame.payload, assumed),
        }
    }
}

fn of_format(format: Format) -> Content {
    match format.kind {
        CodecKind::TelephoneEvent => Content::Event,
        CodecKind::ComfortNoise => Content::Noise,
        _ => Content::Sound(format),
    }
}

/// A packet without payload type among packets of an assumed format.
fn by_shape(payload: &[u8], assumed: &Assumed) -> Content {
    let usual = assumed.commonest_bytes;
    if EventReport::resembles(payload) && usual != 4 {
        return Content::Event;
    }
    let octets_are_samples = matches!(assumed.format.kind, CodecKind::Pcmu | CodecKind::Pcma);
    // Comfort noise is a level and a few coefficients; a G.711 payload of 1.5 ms does not exist.
    if octets_are_samples && payload.len() <= 12 && usual > 12 {
        return Content::Noise;
    }
    Content::Sound(assumed.format)
}
