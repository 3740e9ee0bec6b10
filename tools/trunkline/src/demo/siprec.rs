//! Holding what another appliance recorded of a call over SIPREC against the recording here.

use super::appliance::Appliance;
use super::verify;
use crate::client::{Client, escape};
use crate::wav;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use trunkline_rtpgen::CallResult;
use trunkline_rtpgen::tone::{RATE_HZ, WINDOW_SAMPLES};

/// How far apart a channel's and the other one's place may be found, in samples: each is placed by the
/// arrival of its first packet, at two appliances.
const SKEW_SAMPLES: i64 = 800;
/// The longest time from the beginning of a call until its recorder has it.
const LATE_MS_MAX: f64 = 1500.0;

/// How often the live recording sessions are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Ids of recording sessions by the Call-ID of their call. Ended ones are shown by their id only, so it is
/// taken down while they last.
pub(super) struct Sessions {
    over: Arc<AtomicBool>,
    thread: JoinHandle<HashMap<String, String>>,
}

impl Sessions {
    /// Looks at an appliance's from now on.
    pub(super) fn watch(relay: &Client) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (client, ends) = (relay.clone(), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            let mut found = HashMap::new();
            while !ends.load(Ordering::Relaxed) {
                // What is missed is missing in the end, and said then.
                let list = client.json("GET", "/v1/siprec?limit=1000", None);
                let list = list.unwrap_or_default();
                for one in list["items"].as_array().into_iter().flatten() {
                    if let (Some(call), Some(id)) =
                        (one["call_sip_call_id"].as_str(), one["id"].as_str())
                    {
                        found.insert(call.to_owned(), id.to_owned());
                    }
                }
                std::thread::sleep(LOOK);
            }
            found
        });
        Self { over, thread }
    }

    /// Those found until now.
    pub(super) fn finish(self) -> HashMap<String, String> {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

/// One call's recording session, as both ends of it tell it.
pub(super) struct Recorded {
    /// The recorder's recording.
    id: String,
}

/// Finds the recording that the recorder has of a call by the recording session of that id (`session`): it
/// is whole and has every packet that was sent.
pub(super) fn recorded(
    relay: &Appliance,
    recorder: &Appliance,
    call: &CallResult,
    session: Option<&String>,
    deadline: Instant,
) -> Result<Recorded> {
    let session = session.context("no recording session was seen")?;
    let session = ended_session(&relay.client, session, deadline)?;
    let id = session["session_id"]
        .as_str()
        .context("its metadata names no communication session")?;
    let query = format!("attr.siprec.session={}", escape(id));
    let recording = recorder.client.finished_recording(&query, deadline)?;
    if recording["verdict"] != "complete" {
        bail!("verdict {}: {}", recording["verdict"], recording["receipt"]);
    }
    verify::receipt(&recording["receipt"], call)?;
    for (stream, leg) in ["caller", "callee"].into_iter().enumerate() {
        let sent = &session["streams"][stream]["packets"];
        let written = &recording["receipt"][leg]["written"];
        if sent != written {
            bail!("{leg}: {sent} packets were sent to the recorder, it wrote {written}");
        }
    }
    let id = recording["id"].as_str().context("a recording without id")?;
    Ok(Recorded { id: id.to_owned() })
}

/// The recording session of that id, once it is over.
fn ended_session(relay: &Client, id: &str, deadline: Instant) -> Result<Value> {
    let path = format!("/v1/siprec/{}", escape(id));
    loop {
        let session = relay.json("GET", &path, None)?;
        match session["state"].as_str().unwrap_or("?") {
            "ended" => return Ok(session),
            "failed" => bail!("the recording session failed: {}", session["why"]),
            state if Instant::now() >= deadline => {
                bail!("the recording session is not over (state: {state})")
            }
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// How two recordings of one call lie to each other.
#[derive(Debug, Clone, Copy)]
pub(super) struct Common {
    /// From the beginning of the call until the recorder had it, ms.
    pub(super) late_ms: f64,
    /// Sound that both have, ms.
    pub(super) common_ms: f64,
}

/// Compares the recorder's sound with ours, sample by sample.
pub(super) fn compare(recorder: &Appliance, recorded: &Recorded, ours: &[u8]) -> Result<Common> {
    let path = format!("/v1/recordings/{}/wav", recorded.id);
    let theirs = recorder.client.bytes(&path)?;
    same(ours, &theirs)
}

/// Two WAVs of one call are the same over the time that both have.
fn same(ours: &[u8], theirs: &[u8]) -> Result<Common> {
    let (ours, theirs) = (wav::channels(ours)?, wav::channels(theirs)?);
    let [left, right] = [0, 1].map(|at| same_channel(&ours[at], &theirs[at]));
    let (left, right) = (
        left.context("left channel")?,
        right.context("right channel")?,
    );
    if (left.shift - right.shift).abs() > SKEW_SAMPLES {
        bail!(
            "the channels lie {} samples apart",
            (left.shift - right.shift).abs()
        );
    }
    let ms = |samples: usize| samples as f64 * 1000.0 / f64::from(RATE_HZ);
    let late_ms = ms(left.late.max(right.late));
    if late_ms > LATE_MS_MAX {
        bail!("the recorder had the call only after {late_ms:.0} ms");
    }
    Ok(Common {
        late_ms,
        common_ms: ms(left.common.min(right.common)),
    })
}

/// Where a channel of the recorder's lies in ours.
#[derive(Debug)]
struct Place {
    /// What is added to a place in theirs to get that in ours.
    shift: i64,
    /// Samples of our sound before theirs begins.
    late: usize,
    /// Samples compared.
    common: usize,
}

/// The packets of a tone are marked, so that a passage of theirs is found at one place of ours only. From
/// there every sample that both have must be the same, from the recorder's first sound on.
fn same_channel(ours: &[i16], theirs: &[i16]) -> Result<Place> {
    let begin = sound_begins(theirs).context("the recorder's is silent")?;
    let our_begin = sound_begins(ours).context("ours is silent")?;
    let middle = begin + (theirs.len() - begin) / 2;
    let passage = theirs
        .get(middle..middle + WINDOW_SAMPLES)
        .context("the recorder's is too short to judge")?;
    let mut found = ours
        .windows(WINDOW_SAMPLES)
        .enumerate()
        .filter(|(_, window)| *window == passage)
        .map(|(at, _)| at);
    let at = found
        .next()
        .context("what the recorder has is not in ours")?;
    if found.next().is_some() {
        bail!("what the recorder has is in ours more than once");
    }
    let shift = at as i64 - middle as i64;
    let mut common = 0;
    for (place, their) in theirs.iter().enumerate().skip(begin) {
        let our_place = usize::try_from(place as i64 + shift).ok();
        let Some(our) = our_place.and_then(|at| ours.get(at)) else {
            continue;
        };
        if our != their {
            bail!(
                "at {:.1} ms ours is {our}, the recorder's {their}",
                (place as i64 + shift) as f64 * 1000.0 / f64::from(RATE_HZ)
            );
        }
        common += 1;
    }
    let their_begin = usize::try_from(begin as i64 + shift).unwrap_or_default();
    Ok(Place {
        shift,
        late: their_begin.saturating_sub(our_begin),
        common,
    })
}

fn sound_begins(samples: &[i16]) -> Option<usize> {
    samples.iter().position(|sample| *sample != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wav::tests::wav_of;
    use trunkline_codec::g711::MU_LAW;
    use trunkline_rtpgen::tone::Tone;

    fn spoken(hz: u32, packets: std::ops::Range<u64>) -> Vec<i16> {
        let tone = Tone::marked(hz);
        packets
            .flat_map(|number| tone.payload(number).to_vec())
            .map(|byte| MU_LAW[usize::from(byte)])
            .collect()
    }

    fn shifted(silence: usize, sound: &[i16]) -> Vec<i16> {
        [&vec![0; silence], sound].concat()
    }

    #[test]
    fn a_later_begin_is_aligned_and_what_both_have_is_compared() {
        let ours = wav_of(&spoken(400, 0..100), &spoken(500, 0..100));
        let left = shifted(77, &spoken(400, 10..90));
        let right = shifted(60, &spoken(500, 10..90));
        let common = same(&ours, &wav_of(&left, &right)).unwrap();
        assert!((common.late_ms - 200.0).abs() < 1.0, "{common:?}");
        assert!(common.common_ms >= 1595.0, "{common:?}");
    }

    #[test]
    fn swapped_channels_missing_packets_and_silence_are_told() {
        let ours = wav_of(&spoken(400, 0..100), &spoken(500, 0..100));
        let swapped = wav_of(&spoken(500, 5..100), &spoken(400, 5..100));
        let told = |theirs: &[u8]| format!("{:#}", same(&ours, theirs).unwrap_err());
        assert!(told(&swapped).contains("not in ours"), "{}", told(&swapped));
        let mut hole = spoken(400, 5..100);
        hole[160 * 80..160 * 81].fill(0);
        let hole = wav_of(&hole, &spoken(500, 5..100));
        assert!(told(&hole).contains("left channel: at "), "{}", told(&hole));
        let silent = wav_of(&[0; 16_000], &[0; 16_000]);
        assert!(told(&silent).contains("silent"), "{}", told(&silent));
        let late = wav_of(&spoken(400, 90..100), &spoken(500, 90..100));
        assert!(told(&late).contains("only after"), "{}", told(&late));
    }
}
