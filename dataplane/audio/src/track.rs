//! One channel of the output while it is still changing: a window that moves over the timeline.

/// Longest window, in samples: packets that would need more are not of this time.
const WINDOW_MAX: usize = 12 * 1_024 * 1_024;

/// A channel as several recording sessions bring it: the first one is heard, each further one where
/// nothing was laid on those before.
#[derive(Debug)]
pub(crate) struct Layers {
    first: Track,
    alternates: Vec<Track>,
    scratch: Vec<i16>,
}

impl Layers {
    pub(crate) fn new(end: u64, layers: usize) -> Self {
        let mut first = Track::new(end);
        let mut alternates = Vec::new();
        if layers > 1 {
            first.laid = Some(Vec::new());
            alternates.extend((1..layers).map(|_| Track {
                laid: Some(Vec::new()),
                ..Track::new(end)
            }));
        }
        Self {
            first,
            alternates,
            scratch: Vec::new(),
        }
    }

    /// Adds sound to a layer at an output sample.
    pub(crate) fn add(&mut self, layer: usize, position: i64, samples: &[i16]) {
        let track = match layer.checked_sub(1).map(|at| self.alternates.get_mut(at)) {
            Some(Some(alternate)) => alternate,
            _ => &mut self.first,
        };
        track.add(position, samples);
    }

    /// Takes the next `count` samples off.
    pub(crate) fn take(&mut self, count: usize, output: &mut Vec<i16>) {
        let begin = output.len();
        let mut laid = self.first.take(count, output);
        for alternate in &mut self.alternates {
            self.scratch.clear();
            let more = alternate.take(count, &mut self.scratch);
            laid.resize(more.len().max(laid.len()), false);
            for (index, laid) in laid.iter_mut().enumerate() {
                if !*laid && more.get(index) == Some(&true) {
                    output[begin + index] = self.scratch[index];
                    *laid = true;
                }
            }
        }
    }

    /// Samples that came for a time already taken, or too far ahead.
    pub(crate) fn misplaced(&self) -> u64 {
        let all = std::iter::once(&self.first).chain(&self.alternates);
        all.map(|track| track.misplaced).sum()
    }
}

/// A channel. Sounds are added to it anywhere in its window; what lies before a point is taken
/// off in order.
#[derive(Debug)]
pub(crate) struct Track {
    /// Output sample of the window's start.
    base: i64,
    window: Vec<i16>,
    /// Length of the output: nothing is kept beyond.
    end: i64,
    /// Samples that came for a time already taken, or too far ahead.
    pub(crate) misplaced: u64,
    /// Where in the window sound was laid, if that is of interest.
    laid: Option<Vec<bool>>,
}

impl Track {
    pub(crate) fn new(end: u64) -> Self {
        let end = i64::try_from(end).unwrap_or(i64::MAX);
        Self {
            base: 0,
            window: Vec::new(),
            end,
            misplaced: 0,
            laid: None,
        }
    }

    /// Adds sound at an output sample. Where sounds meet they are mixed.
    pub(crate) fn add(&mut self, position: i64, samples: &[i16]) {
        let length = samples.len() as i64;
        // Before sample 0 and after the end is nothing that was asked for.
        let skip = position.saturating_neg().clamp(0, length);
        let keep = (self.end.saturating_sub(position)).clamp(skip, length);
        let position = position.saturating_add(skip);
        let mut samples = &samples[skip as usize..keep as usize];
        let mut offset = position.saturating_sub(self.base);
        if offset < 0 {
            let gone = offset.unsigned_abs().min(samples.len() as u64) as usize;
            self.misplaced += gone as u64;
            samples = &samples[gone..];
            offset = 0;
        }
        if samples.is_empty() {
            return;
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        if start
            .checked_add(samples.len())
            .is_none_or(|stop| stop > WINDOW_MAX)
        {
            self.misplaced += samples.len() as u64;
            return;
        }
        if let Some(laid) = &mut self.laid {
            laid.resize(laid.len().max(start + samples.len()), false);
            laid[start..start + samples.len()].fill(true);
        }
        let fresh = self.window.len().saturating_sub(start).min(samples.len());
        if fresh > 0 {
            for (old, new) in self.window[start..].iter_mut().zip(&samples[..fresh]) {
                *old = old.saturating_add(*new);
            }
        }
        if self.window.len() < start {
            self.window.resize(start, 0);
        }
        self.window.extend_from_slice(&samples[fresh..]);
    }

    /// Takes the next `count` samples off the window's start; says of the first ones whether sound was laid
    /// there, where that is of interest.
    pub(crate) fn take(&mut self, count: usize, output: &mut Vec<i16>) -> Vec<bool> {
        let ready = count.min(self.window.len());
        output.extend_from_slice(&self.window[..ready]);
        output.resize(output.len() + count - ready, 0);
        self.window.drain(..ready);
        self.base += count as i64;
        match &mut self.laid {
            Some(laid) => laid.drain(..count.min(laid.len())).collect(),
            None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(track: &mut Track, count: usize) -> Vec<i16> {
        let mut output = Vec::new();
        track.take(count, &mut output);
        output
    }

    #[test]
    fn sounds_lie_where_they_belong_and_mix_where_they_meet() {
        let mut track = Track::new(12);
        track.add(4, &[1, 2, 3]);
        track.add(6, &[10, 20]);
        track.add(0, &[7]);
        track.add(-2, &[9, 9, 5]);
        track.add(9, &[8; 10]);
        assert_eq!(taken(&mut track, 5), [12, 0, 0, 0, 1]);
        assert_eq!(taken(&mut track, 7), [2, 13, 20, 0, 8, 8, 8]);
        assert_eq!(track.misplaced, 0);
    }

    #[test]
    fn a_layer_is_heard_where_those_before_it_are_not() {
        let mut layers = Layers::new(20, 3);
        layers.add(0, 2, &[1, 0, 3]);
        layers.add(1, 0, &[10; 6]);
        layers.add(2, 4, &[20; 4]);
        let mut output = vec![7];
        layers.take(5, &mut output);
        layers.take(5, &mut output);
        assert_eq!(output, [7, 10, 10, 1, 0, 3, 10, 20, 20, 0, 0]);
        // Nothing is left over for later.
        layers.add(1, 12, &[5]);
        let mut output = Vec::new();
        layers.take(5, &mut output);
        assert_eq!(output, [0, 0, 5, 0, 0]);
        assert_eq!(layers.misplaced(), 0);
    }

    #[test]
    fn what_comes_too_late_or_from_another_age_is_counted() {
        let mut track = Track::new(u64::MAX);
        assert_eq!(taken(&mut track, 10), vec![0; 10]);
        track.add(8, &[1, 1, 1, 1]);
        assert_eq!(track.misplaced, 2);
        track.add(i64::MAX - 10, &[1; 5]);
        assert_eq!(track.misplaced, 7);
        track.add(i64::MIN, &[1; 5]);
        assert_eq!(taken(&mut track, 4), [1, 1, 0, 0]);
    }
}
