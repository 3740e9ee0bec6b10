//! The lower envelope of delays, and the line that a drifting clock draws in it.

/// Media time of one bucket, ns, to begin with.
const BUCKET_NS: i64 = 5_000_000_000;
const BUCKETS_MAX: usize = 1_024;
/// Buckets that "recent" looks back.
const RECENT: usize = 3;
/// A line is fitted from this many buckets on.
const FIT_MIN: usize = 8;
/// Drift that adds up to less over a segment is left alone, ns.
const DRIFT_MIN_NS: f64 = 3_000_000.0;
/// No sound card is further off.
const SLOPE_MAX: f64 = 2e-3;

/// Delay as a line over media time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    origin_ns: i64,
    delay_ns: f64,
    /// ns of delay gained a ns of media time.
    pub(crate) slope: f64,
}

impl Line {
    /// The same delay always.
    pub(crate) fn constant(delay_ns: i64) -> Self {
        Self {
            origin_ns: 0,
            delay_ns: delay_ns as f64,
            slope: 0.0,
        }
    }

    /// The delay at a media time.
    pub(crate) fn at(&self, media_ns: i64) -> i64 {
        if self.slope == 0.0 {
            return self.delay_ns as i64;
        }
        let offset = media_ns.saturating_sub(self.origin_ns) as f64 * self.slope;
        (self.delay_ns + offset).round() as i64
    }

    /// The same line, later by `shift_ns`.
    pub(crate) fn shifted(self, shift_ns: i64) -> Self {
        Self {
            delay_ns: self.delay_ns + shift_ns as f64,
            ..self
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    index: i64,
    media_ns: i64,
    delay_ns: i64,
}

/// Smallest delays, one for each few seconds.
#[derive(Debug, Clone)]
pub(crate) struct Envelope {
    buckets: Vec<Bucket>,
    width_ns: i64,
    lowest_ns: i64,
}

impl Default for Envelope {
    fn default() -> Self {
        Self {
            buckets: Vec::new(),
            width_ns: BUCKET_NS,
            lowest_ns: i64::MAX,
        }
    }
}

impl Envelope {
    pub(crate) fn add(&mut self, media_ns: i64, delay_ns: i64) {
        self.lowest_ns = self.lowest_ns.min(delay_ns);
        let index = media_ns.div_euclid(self.width_ns);
        match self.buckets.last_mut() {
            Some(last) if last.index >= index => {
                if delay_ns < last.delay_ns {
                    last.delay_ns = delay_ns;
                    last.media_ns = media_ns;
                }
            }
            _ => {
                self.buckets.push(Bucket {
                    index,
                    media_ns,
                    delay_ns,
                });
                if self.buckets.len() > BUCKETS_MAX {
                    self.coarsen();
                }
            }
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for bucket in &other.buckets {
            self.add(bucket.media_ns, bucket.delay_ns);
        }
    }

    /// Smallest delay of the last seconds.
    pub(crate) fn recent(&self) -> i64 {
        let start = self.buckets.len().saturating_sub(RECENT);
        self.buckets[start..]
            .iter()
            .map(|bucket| bucket.delay_ns)
            .min()
            .unwrap_or(0)
    }

    /// Smallest delay of all.
    pub(crate) fn lowest(&self) -> i64 {
        self.lowest_ns
    }

    fn coarsen(&mut self) {
        self.width_ns = self.width_ns.saturating_mul(2);
        let mut merged: Vec<Bucket> = Vec::with_capacity(BUCKETS_MAX);
        for bucket in self.buckets.drain(..) {
            let index = bucket.media_ns.div_euclid(self.width_ns);
            match merged.last_mut() {
                Some(last) if last.index == index => {
                    if bucket.delay_ns < last.delay_ns {
                        *last = Bucket { index, ..bucket };
                    }
                }
                _ => merged.push(Bucket { index, ..bucket }),
            }
        }
        self.buckets = merged;
    }

    /// The delay to place by: constant, or a line where the sender's clock plainly drifts.
    pub(crate) fn line(&self) -> Line {
        self.fit().unwrap_or_else(|| Line::constant(self.lowest_ns))
    }

    fn fit(&self) -> Option<Line> {
        if self.buckets.len() < FIT_MIN {
            return None;
        }
        let step = self.buckets.len().div_ceil(200);
        let origin = self.buckets[0].media_ns;
        let points: Vec<(f64, f64)> = self
            .buckets
            .iter()
            .step_by(step)
            .map(|b| {
                (
                    (b.media_ns - origin) as f64,
                    (b.delay_ns - self.lowest_ns) as f64,
                )
            })
            .collect();
        let slope = median_slope(&points)?;
        let span = self.buckets.last()?.media_ns.saturating_sub(origin) as f64;
        let drift = (slope * span).abs();
        if slope.abs() > SLOPE_MAX || drift < DRIFT_MIN_NS {
            return None;
        }
        let mut rest: Vec<f64> = points.iter().map(|(x, y)| y - slope * x).collect();
        rest.sort_by(f64::total_cmp);
        // Steps and wander are no drift: the line has to explain nearly all of the movement.
        let spread = rest[rest.len() * 9 / 10] - rest[rest.len() / 10];
        if spread > (drift / 3.0).max(1_000_000.0) {
            return None;
        }
        let delay_ns = self.lowest_ns as f64 + rest[rest.len() / 10];
        Some(Line {
            origin_ns: origin,
            delay_ns,
            slope,
        })
    }
}

/// The median of the slopes between all pairs of points (Theil and Sen).
fn median_slope(points: &[(f64, f64)]) -> Option<f64> {
    let mut slopes = Vec::with_capacity(points.len() * points.len() / 2);
    for (index, a) in points.iter().enumerate() {
        slopes.extend(
            points[index + 1..]
                .iter()
                .filter(|b| b.0 > a.0)
                .map(|b| (b.1 - a.1) / (b.0 - a.0)),
        );
    }
    if slopes.is_empty() {
        return None;
    }
    let middle = slopes.len() / 2;
    Some(*slopes.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(ppm: f64, minutes: i64, jitter_ms: u64) -> Envelope {
        let mut envelope = Envelope::default();
        let mut state = 1_u64;
        for n in 0..minutes * 3_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let jitter = if jitter_ms == 0 {
                0
            } else {
                (state >> 33) % (jitter_ms * 1_000_000)
            };
            let media = n * 20_000_000;
            envelope.add(
                media,
                5_000_000 + (media as f64 * ppm * 1e-6) as i64 + jitter as i64,
            );
        }
        envelope
    }

    #[test]
    fn a_drift_of_200_ppm_over_an_hour_is_found_under_jitter() {
        for ppm in [-200.0, -50.0, 50.0, 200.0] {
            let line = envelope(ppm, 60, 20).line();
            assert!(
                (line.slope * 1e6 - ppm).abs() < 0.2,
                "{ppm}: {}",
                line.slope * 1e6
            );
            let end = 3_600_000_000_000;
            let error = line.at(end) - 5_000_000 - (3_600_000.0 * ppm) as i64;
            assert!(error.abs() < 1_000_000, "{ppm}: {error} ns");
        }
    }

    #[test]
    fn a_steady_clock_and_short_calls_are_left_alone() {
        assert_eq!(envelope(0.0, 60, 20).line().slope, 0.0);
        assert_eq!(envelope(0.0, 60, 0).line(), Line::constant(5_000_000));
        assert_eq!(envelope(20.0, 1, 0).line().slope, 0.0);
    }

    #[test]
    fn a_step_is_not_a_drift() {
        let mut envelope = Envelope::default();
        for n in 0..180_000_i64 {
            envelope.add(n * 20_000_000, if n < 90_000 { 0 } else { 30_000_000 });
        }
        assert_eq!(envelope.line().slope, 0.0);
    }
}
