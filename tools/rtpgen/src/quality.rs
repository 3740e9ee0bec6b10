//! How good a call sounded, estimated from what was lost (ITU-T G.107, reduced to what is known here).

/// Delay of a playout buffer beyond the jitter, ms.
const PLAYOUT_MS: f64 = 40.0;

/// Mean opinion score, 1 to 4.41, of a G.711 call: from the part of packets lost and the jitter.
#[must_use]
pub fn mos(loss: f64, jitter_ms: f64) -> f64 {
    let delay_ms = PLAYOUT_MS + 2.0 * jitter_ms;
    let g711 = trunkline_codec::CodecKind::Pcmu.impairment();
    g711.map_or(1.0, |g711| g711.mos(100.0 * loss, delay_ms))
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
