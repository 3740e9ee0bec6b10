//! Puts payloads that were stored in pieces together again.

use std::borrow::Cow;

use crate::frame::{Frame, FrameKind, flags};

/// A payload longer than this is not put together: damage made the pieces endless.
const WHOLE_MAX: usize = 1 << 20;
/// Payloads in the making at once: kinds, sides and m-lines whose pieces interleave.
const PARTIAL_MAX: usize = 64;

/// Gives stored frames, each with its number among the pieces of its payload.
pub trait Pieces<'a> {
    /// The next one.
    fn next_piece(&mut self) -> Option<(Frame<'a>, u8)>;
}

/// Joins the pieces of stored frames.
#[derive(Debug)]
pub struct Assemble<'a, I> {
    inner: I,
    /// What has come of each payload in the making, and the number of the piece that follows.
    partial: Vec<(Frame<'a>, u8)>,
}

impl<'a, I> Assemble<'a, I> {
    /// Over stored frames.
    #[must_use]
    pub const fn new(inner: I) -> Self {
        Self {
            inner,
            partial: Vec::new(),
        }
    }

    fn take(&mut self, frame: Frame<'a>, piece: u8) -> Option<Frame<'a>> {
        let shape = frame.flags & flags::SHAPE;
        if shape == 0 {
            return Some(frame);
        }
        if shape & flags::EMPTY != 0 {
            return Some(bare(Frame {
                payload: Cow::Borrowed(&[]),
                ..frame
            }));
        }
        let found = self
            .partial
            .iter()
            .position(|(partial, _)| key(partial) == key(&frame));
        let before = found.map(|index| self.partial.swap_remove(index));
        if shape & flags::CONTINUED == 0 {
            if self.partial.len() < PARTIAL_MAX {
                self.partial.push((frame, 1));
            }
            return None;
        }
        // A piece before this one was lost; that place was reported.
        let (mut whole, _) = before.filter(|(_, next)| *next == piece)?;
        whole.payload.to_mut().extend_from_slice(&frame.payload);
        if shape & flags::MORE == 0 {
            return Some(bare(whole));
        }
        if whole.payload.len() < WHOLE_MAX {
            self.partial.push((whole, piece.wrapping_add(1)));
        }
        None
    }
}

fn key(frame: &Frame<'_>) -> (FrameKind, u8, u8) {
    (frame.kind, frame.side, frame.media)
}

fn bare(frame: Frame<'_>) -> Frame<'_> {
    Frame {
        flags: frame.flags & !flags::SHAPE,
        ..frame
    }
}

impl<'a, I: Pieces<'a>> Iterator for Assemble<'a, I> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        loop {
            let (frame, piece) = self.inner.next_piece()?;
            if let Some(frame) = self.take(frame, piece) {
                return Some(frame);
            }
        }
    }
}
