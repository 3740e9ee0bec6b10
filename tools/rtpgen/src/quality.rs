//! How good a call sounded, estimated from what was lost (ITU-T G.107, reduced to what is known here).

/// Delay of a playout buffer beyond the jitter, ms.
const PLAYOUT_MS: f64 = 40.0;
/// G.711 with concealment (G.113): how well it stands random loss.
const LOSS_ROBUSTNESS: f64 = 25.1;

/// Mean opinion score, 1 to 4.41: from the part of packets lost and the jitter.
#[must_use]
pub fn mos(loss: f64, jitter_ms: f64) -> f64 {
    let delay_ms = PLAYOUT_MS + 2.0 * jitter_ms;
    let beyond = (delay_ms - 177.3).max(0.0);
    let delay_impairment = 0.024 * delay_ms + 0.11 * beyond;
    let percent = 100.0 * loss.clamp(0.0, 1.0);
    let loss_impairment = 95.0 * percent / (percent + LOSS_ROBUSTNESS);
    let rating = (93.2 - delay_impairment - loss_impairment).clamp(0.0, 100.0);
    let score = 1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6;
    score.clamp(1.0, 4.5)
}

#[cfg(test)]
mod tests {
    use super::mos;

    #[test]
    fn loss_and_jitter_cost_quality() {
        assert!((4.3..4.45).contains(&mos(0.0, 0.5)), "{}", mos(0.0, 0.5));
        let scores = [0.0, 0.01, 0.05, 0.2, 1.0].map(|loss| mos(loss, 1.0));
        assert!(scores.is_sorted_by(|a, b| a > b), "{scores:?}");
        assert!(mos(0.0, 200.0) < mos(0.0, 20.0));
        assert!(mos(1.0, 0.0) >= 1.0);
    }
}
