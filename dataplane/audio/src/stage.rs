//! What all players work on: tracks, resampling kernels, counts.

use crate::plan::Plan;
use crate::resample::Kernel;
use crate::track::Layers;
use std::collections::HashMap;
use std::sync::Arc;

/// What playing has to say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PlayCounts {
    /// Packets decoded.
    pub decoded: u64,
    /// Gaps that were filled by concealment.
    pub concealed: u64,
    /// Packets whose payload the decoder refused.
    pub refused: u64,
    /// Packets that came again, or after their time had been played.
    pub surplus: u64,
    /// Samples for a time that was already written; more than 0 only in captures whose clock jumps.
    pub misplaced_samples: u64,
}

/// Sound that was lost, on the output's scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Output channel.
    pub channel: usize,
    /// First sample.
    pub position: i64,
    /// Samples.
    pub samples: i64,
}

/// Gaps remembered of one capture.
pub(crate) const GAPS_MAX: usize = 100_000;

/// No call has more rates; each takes megabytes where rates are far apart.
const KERNELS_MAX: usize = 4;

/// Kernels by (input rate, output rate), made once.
#[derive(Default)]
pub(crate) struct Kernels(HashMap<(u32, u32), Arc<Kernel>>);

impl Kernels {
    pub(crate) fn get(&mut self, input_hz: u32, output_hz: u32) -> Arc<Kernel> {
        let known = self.0.contains_key(&(input_hz, output_hz));
        if !known && self.0.len() >= KERNELS_MAX {
            self.0.clear();
        }
        self.0
            .entry((input_hz, output_hz))
            .or_insert_with(|| Kernel::new(input_hz, output_hz))
            .clone()
    }
}

/// What every player works on.
pub(crate) struct Stage<'p> {
    pub(crate) plan: &'p Plan,
    /// One for each output channel.
    pub(crate) tracks: Vec<Layers>,
    pub(crate) kernels: Kernels,
    pub(crate) counts: PlayCounts,
    pub(crate) gaps: Vec<Gap>,
    /// Resampled sound on its way to a track.
    pub(crate) scratch: Vec<i16>,
}

impl<'p> Stage<'p> {
    pub(crate) fn new(plan: &'p Plan) -> Self {
        Self {
            plan,
            tracks: (0..plan.channels())
                .map(|_| Layers::new(plan.samples, plan.layers))
                .collect(),
            kernels: Kernels::default(),
            counts: PlayCounts::default(),
            gaps: Vec::new(),
            scratch: Vec::new(),
        }
    }
}
