//! An estimate of listening quality from loss and delay: the E-model of ITU-T G.107 and, for
//! wideband codecs, G.107.1, with default values for everything that a receiver cannot know.

use crate::CodecKind;

/// Rating of a connection without any impairment: narrow band (G.107 with default values) and
/// wide band (G.107.1).
const RATING_NARROW: f64 = 93.2;
const RATING_WIDE: f64 = 129.0;

/// What a codec costs by itself and under loss, on the scale of its band.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Impairment {
    /// The scale is that of G.107.1.
    pub wide: bool,
    /// Equipment impairment factor without loss (Ie; Ie,WB).
    pub equipment: f64,
    /// Packet-loss robustness factor (Bpl).
    pub robustness: f64,
}

impl CodecKind {
    /// Planning values of ITU-T G.113 for the codec with concealment of losses. Where G.113 has
    /// none, those of the nearest codec that it has: losses of GSM and the AMR family as GSM-EFR,
    /// Opus as the highest mode of AMR-WB, losses of G.722 as G.711, which is concealed alike.
    /// `None` where nothing is near enough to say, and for what is no sound.
    #[must_use]
    pub const fn impairment(self) -> Option<Impairment> {
        let (wide, equipment, robustness) = match self {
            Self::Pcmu | Self::Pcma | Self::L16 => (false, 0.0, 25.1),
            Self::G729 => (false, 11.0, 19.0),
            Self::Gsm => (false, 20.0, 10.0),
            // Its highest mode, 12.2 kbit/s, is GSM-EFR.
            Self::Amr => (false, 5.0, 10.0),
            Self::G722 => (true, 13.0, 25.1),
            // At 12.65 kbit/s, the mode that wideband calls are made in.
            Self::AmrWb => (true, 13.0, 10.0),
            Self::Opus => (true, 1.0, 10.0),
            Self::Ilbc | Self::TelephoneEvent | Self::ComfortNoise => return None,
        };
        Some(Impairment {
            wide,
            equipment,
            robustness,
        })
    }
}

impl Impairment {
    /// Mean opinion score from 1 to 4.5 for a share of lost packets in per cent (taken as random)
    /// and a delay from mouth to ear in ms. A wideband score is on the wideband scale: the same
    /// number is a better sound there.
    #[must_use]
    pub fn mos(&self, loss_percent: f64, delay_ms: f64) -> f64 {
        let loss = loss_percent.clamp(0.0, 100.0);
        let delay_ms = delay_ms.max(0.0);
        let by_delay = 0.024 * delay_ms + 0.11 * (delay_ms - 177.3).max(0.0);
        let by_codec = self.equipment + (95.0 - self.equipment) * loss / (loss + self.robustness);
        let rating = if self.wide {
            (RATING_WIDE - by_delay - by_codec) * 100.0 / RATING_WIDE
        } else {
            RATING_NARROW - by_delay - by_codec
        };
        let rating = rating.clamp(0.0, 100.0);
        (1.0 + 0.035 * rating + rating * (rating - 60.0) * (100.0 - rating) * 7e-6).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mos(kind: CodecKind, loss_percent: f64) -> f64 {
        kind.impairment().unwrap().mos(loss_percent, 0.0)
    }

    #[test]
    fn codecs_are_rated_as_published() {
        // G.107: a rating of 93.2 is a score of 4.41, 82.2 (G.729 with annex A) is 4.11, 73.2
        // (GSM full rate) is 3.75.
        assert!((mos(CodecKind::Pcmu, 0.0) - 4.41).abs() < 0.01);
        assert!((mos(CodecKind::G729, 0.0) - 4.11).abs() < 0.01);
        assert!((mos(CodecKind::Gsm, 0.0) - 3.75).abs() < 0.01);
        assert!(mos(CodecKind::Opus, 0.0) > mos(CodecKind::G722, 0.0));
        assert_eq!(CodecKind::Ilbc.impairment(), None);
        assert_eq!(CodecKind::TelephoneEvent.impairment(), None);
    }

    #[test]
    fn loss_and_delay_only_ever_cost() {
        for kind in CodecKind::ALL {
            let Some(impairment) = kind.impairment() else {
                continue;
            };
            let mut before = 5.0;
            for loss in [0.0, 0.5, 1.0, 3.0, 10.0, 50.0, 100.0, 1e9] {
                let score = impairment.mos(loss, 20.0);
                assert!((1.0..=before).contains(&score), "{kind:?} at {loss} %");
                before = score;
            }
            assert!(impairment.mos(1.0, 400.0) < impairment.mos(1.0, 100.0));
            assert!(impairment.mos(1.0, -5.0) <= 4.5);
        }
    }
}
