//! What a recorder of ours kept of a probe, by its API.

use super::offer::{LABELS, TONES_HZ};
use crate::client::{Client, escape};
use crate::siprec::report::{Finding, Verdict};
use crate::wav;
use anyhow::{Context, Result, bail};
use std::time::{Duration, Instant};
use trunkline_rtpgen::tone::{Heard, WINDOW_SAMPLES, judge as judge_tone};

/// The contract gives a recording 5 s after its session's end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Windows of 100 ms that may be torn: at begin, pause, resumption and end.
const TORN_MAX: usize = 8;

/// Judges the recording of a communication session, of which so many packets were sent on each line.
pub(super) fn judge(client: &Client, session_id: &str, sent: [u64; 2]) -> Vec<Finding> {
    match look(client, session_id, sent) {
        Ok(findings) => findings,
        Err(error) => vec![Finding::new(
            "recording",
            Verdict::Fail,
            "",
            format!("{error:#}"),
        )],
    }
}

fn look(client: &Client, session_id: &str, sent: [u64; 2]) -> Result<Vec<Finding>> {
    let query = format!("attr.siprec.session={}", escape(session_id));
    let recording = client.finished_recording(&query, Instant::now() + PATIENCE)?;
    let id = recording["id"].as_str().context("a recording without id")?;
    let verdict = recording["verdict"].as_str().unwrap_or_default();
    let whole = if verdict == "complete" {
        Verdict::Pass
    } else {
        Verdict::Fail
    };
    let mut findings = vec![Finding::new(
        "recording",
        whole,
        "",
        format!("{id}: {verdict}"),
    )];
    for (place, leg) in ["caller", "callee"].into_iter().enumerate() {
        let written = recording["receipt"][leg]["written"]
            .as_u64()
            .unwrap_or_default();
        let (verdict, label) = (of(written == sent[place]), LABELS[place]);
        let text = format!(
            "label {label}: {} packets sent, {written} written",
            sent[place]
        );
        findings.push(Finding::new("packets", verdict, "", text));
    }
    let bytes = client.bytes(&format!("/v1/recordings/{id}/wav"))?;
    findings.push(channels(&wav::channels(&bytes)?)?);
    Ok(findings)
}

const fn of(good: bool) -> Verdict {
    if good { Verdict::Pass } else { Verdict::Fail }
}

/// Which tone is on which channel.
fn channels(channels: &[Vec<i16>; 2]) -> Result<Finding> {
    let find =
        |verdict, text: String| Ok(Finding::new("channels", verdict, "RFC 7866 7.1.1", text));
    let heard = [0, 1].map(|channel: usize| TONES_HZ.map(|hz| windows(&channels[channel], hz)));
    let [[left_own, left_other], [right_other, right_own]] = heard;
    if left_other > left_own && right_other > right_own {
        let text = format!(
            "swapped: {} Hz of label {} is on the right",
            TONES_HZ[0], LABELS[0]
        );
        return find(Verdict::Fail, text);
    }
    for (side, own, other) in [
        ("left", left_own, left_other),
        ("right", right_own, right_other),
    ] {
        if own == 0 || other > 0 {
            bail!("{side} channel: its tone in {own} windows of 100 ms, the other one in {other}");
        }
        let torn = channels[0].len() / WINDOW_SAMPLES - own;
        let silent = silent(&channels[usize::from(side == "right")]);
        if torn.saturating_sub(silent) > TORN_MAX {
            let text = format!(
                "{side} channel: {} windows of 100 ms are torn",
                torn - silent
            );
            return find(Verdict::Fail, text);
        }
    }
    let text = format!("{} Hz left, {} Hz right, as sent", TONES_HZ[0], TONES_HZ[1]);
    find(Verdict::Pass, text)
}

fn windows(samples: &[i16], hz: u32) -> usize {
    let windows = samples.chunks_exact(WINDOW_SAMPLES);
    windows
        .filter(|window| judge_tone(window, hz) == Heard::Expected)
        .count()
}

fn silent(samples: &[i16]) -> usize {
    let windows = samples.chunks_exact(WINDOW_SAMPLES);
    let silence = |window: &&[i16]| judge_tone(window, TONES_HZ[0]) == Heard::Silence;
    windows.filter(silence).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use trunkline_codec::g711::MU_LAW;
    use trunkline_rtpgen::tone::Tone;

    fn spoken(hz: u32, packets: u64) -> Vec<i16> {
        let tone = Tone::new(hz);
        let bytes = (0..packets).flat_map(|number| tone.payload(number).to_vec());
        bytes.map(|byte| MU_LAW[usize::from(byte)]).collect()
    }

    #[test]
    fn swapped_channels_are_told_from_good_and_from_missing_ones() {
        let [one, two] = TONES_HZ.map(|hz| spoken(hz, 100));
        let verdict = |left: &[i16], right: &[i16]| {
            channels(&[left.to_vec(), right.to_vec()]).map(|one| (one.verdict, one.text))
        };
        assert_eq!(verdict(&one, &two).unwrap().0, Verdict::Pass);
        let (swapped, text) = verdict(&two, &one).unwrap();
        assert_eq!(swapped, Verdict::Fail);
        assert!(text.starts_with("swapped"), "{text}");
        assert!(
            verdict(&one, &vec![0; two.len()]).is_err(),
            "one is missing"
        );
        assert!(verdict(&one, &one).is_err(), "the same on both");
    }
}
