//! Holding a recording against the call that it is of.

use crate::wav;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use trunkline_rtpgen::CallResult;
use trunkline_rtpgen::tone::{self, Heard, RATE_HZ, WINDOW_SAMPLES};

/// How far the recording's length may be from the call's as the callers measured it, ms: they know of
/// the answer and the BYE a little later than the appliance in the middle, or earlier.
const LENGTH_TOLERANCE_MS: f64 = 500.0;
/// Windows at either end that may hold the beginning or the end of a tone.
const EDGE_WINDOWS: usize = 2;

/// The caller's tone is left, the callee's right, for as long as the call was.
pub(super) fn sound(wav: &[u8], call: &CallResult) -> Result<()> {
    let [left, right] = wav::channels(wav)?;
    let length_ms = left.len() as f64 * 1000.0 / f64::from(RATE_HZ);
    if (length_ms - call.duration_ms).abs() > LENGTH_TOLERANCE_MS {
        bail!(
            "the WAV is {length_ms:.0} ms long, the call was {:.0} ms",
            call.duration_ms
        );
    }
    // What an end was to hear is what the other end said.
    let caller = call.caller.as_ref().context("no result of the caller")?;
    let callee = call.callee.as_ref().context("no result of the callee")?;
    only_tone(&left, callee.tone_hz).context("left channel")?;
    only_tone(&right, caller.tone_hz).context("right channel")
}

/// One tone from beginning to end.
fn only_tone(samples: &[i16], tone_hz: u32) -> Result<()> {
    let windows: Vec<Heard> = samples
        .chunks_exact(WINDOW_SAMPLES)
        .map(|window| tone::judge(window, tone_hz))
        .collect();
    let inner = windows
        .get(EDGE_WINDOWS..windows.len().saturating_sub(EDGE_WINDOWS))
        .unwrap_or_default();
    if inner.is_empty() {
        bail!("too short to judge");
    }
    match inner.iter().position(|heard| *heard != Heard::Expected) {
        None => Ok(()),
        Some(at) => bail!(
            "{tone_hz} Hz expected at {} ms, heard: {:?}",
            (at + EDGE_WINDOWS) * 100,
            inner[at]
        ),
    }
}

/// Every leg's packets are accounted for, and all of them are there.
pub(super) fn receipt(receipt: &Value, call: &CallResult) -> Result<()> {
    for (leg, sent) in [("caller", &call.caller), ("callee", &call.callee)] {
        let count = |name: &str| {
            receipt[leg][name]
                .as_u64()
                .with_context(|| format!("{leg}: no {name}"))
        };
        let (expected, written) = (count("expected")?, count("written")?);
        let (lost, dropped) = (count("lost")?, count("dropped")?);
        if expected != written + lost + dropped {
            bail!(
                "{leg}: {expected} expected is not {written} written + {lost} lost + {dropped} dropped"
            );
        }
        let sent = sent.as_ref().map_or(0, |end| end.sent);
        if written == 0 || written > sent || lost + dropped > 0 {
            bail!("{leg}: {sent} sent, {written} written, {lost} lost, {dropped} dropped");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_rtpgen::EndResult;

    fn wav(left_hz: u32, right_hz: u32, seconds: u32) -> Vec<u8> {
        let sine = |hz: u32| -> Vec<i16> {
            let sample = |at: u32| {
                let turns = f64::from(hz) * f64::from(at) / f64::from(RATE_HZ);
                ((turns * std::f64::consts::TAU).sin() * 8000.0) as i16
            };
            (0..RATE_HZ * seconds).map(sample).collect()
        };
        crate::wav::tests::wav_of(&sine(left_hz), &sine(right_hz))
    }

    fn call() -> CallResult {
        let end = |tone_hz| {
            Some(EndResult {
                tone_hz,
                sent: 150,
                ..EndResult::default()
            })
        };
        CallResult {
            duration_ms: 3000.0,
            caller: end(500),
            callee: end(400),
            ..CallResult::default()
        }
    }

    #[test]
    fn the_right_tones_on_the_right_channels_pass() {
        sound(&wav(400, 500, 3), &call()).unwrap();
        let swapped = format!("{:#}", sound(&wav(500, 400, 3), &call()).unwrap_err());
        assert!(
            swapped.contains("left channel") && swapped.contains("Other(500)"),
            "{swapped}"
        );
        assert!(sound(&wav(400, 500, 2), &call()).is_err(), "too short");
        assert!(sound(&wav(400, 500, 3)[..40], &call()).is_err(), "cut");
        assert!(sound(b"{\"error\": \"something that is no WAV at all\"}", &call()).is_err());
    }

    #[test]
    fn a_receipt_must_add_up_and_be_whole() {
        let leg = |expected, written, lost| serde_json::json!({ "expected": expected, "written": written, "lost": lost, "dropped": 0 });
        let of = |caller: Value, callee: Value| serde_json::json!({ "caller": caller, "callee": callee });
        receipt(&of(leg(150, 150, 0), leg(149, 149, 0)), &call()).unwrap();
        assert!(receipt(&of(leg(150, 149, 0), leg(150, 150, 0)), &call()).is_err());
        assert!(receipt(&of(leg(150, 149, 1), leg(150, 150, 0)), &call()).is_err());
        assert!(receipt(&of(leg(0, 0, 0), leg(150, 150, 0)), &call()).is_err());
        assert!(receipt(&serde_json::json!({}), &call()).is_err());
    }
}
