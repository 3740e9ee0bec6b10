//! The HTTP API, as a client sees it.

use std::io::Cursor;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;

use crate::process::eventually;

/// A client of one appliance.
#[derive(Debug)]
pub struct Api {
    base: String,
    agent: Agent,
}

/// A recording as 16-bit sound.
#[derive(Debug, Clone)]
pub struct Stereo {
    /// Samples a second.
    pub rate_hz: u32,
    /// The caller.
    pub left: Vec<i16>,
    /// The callee.
    pub right: Vec<i16>,
}

impl Api {
    /// A client of the appliance at `base` (`http://127.0.0.1:PORT`).
    #[must_use]
    pub fn new(base: &str) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)))
            .build();
        Self {
            base: base.to_owned(),
            agent: config.into(),
        }
    }

    /// Where it is, ADDRESS:PORT.
    #[must_use]
    pub fn address(&self) -> String {
        self.base.trim_start_matches("http://").to_owned()
    }

    /// Status and body of a GET; `None` when nobody answers.
    #[must_use]
    pub fn try_get(&self, path: &str) -> Option<(u16, Vec<u8>)> {
        let mut response = self.agent.get(format!("{}{path}", self.base)).call().ok()?;
        let body = response
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .read_to_vec()
            .ok()?;
        Some((response.status().as_u16(), body))
    }

    /// The JSON of a GET that must succeed.
    ///
    /// # Panics
    /// It does not, or the body is no JSON.
    #[must_use]
    pub fn get(&self, path: &str) -> Value {
        let (status, body) = self
            .try_get(path)
            .unwrap_or_else(|| panic!("GET {path}: no answer"));
        let text = String::from_utf8_lossy(&body);
        assert!((200..300).contains(&status), "GET {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("GET {path}: {error}: {text}"))
    }

    /// Status and JSON (null if none) of a POST.
    ///
    /// # Panics
    /// Nobody answers.
    #[must_use]
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let response = self
            .agent
            .post(format!("{}{path}", self.base))
            .send_json(body);
        let mut response = response.unwrap_or_else(|error| panic!("POST {path}: {error}"));
        let json = response.body_mut().read_json().unwrap_or(Value::Null);
        (response.status().as_u16(), json)
    }

    /// Status of a DELETE.
    ///
    /// # Panics
    /// Nobody answers.
    #[must_use]
    pub fn delete(&self, path: &str) -> u16 {
        let response = self.agent.delete(format!("{}{path}", self.base)).call();
        response
            .unwrap_or_else(|error| panic!("DELETE {path}: {error}"))
            .status()
            .as_u16()
    }

    /// Does something to a call's recording, which must succeed; returns the recording.
    ///
    /// # Panics
    /// It does not succeed.
    #[must_use]
    pub fn record(&self, call: &str, action: &str) -> Value {
        let path = format!("/v1/calls/{call}/recording");
        let (status, body) = self.post(&path, &serde_json::json!({ "action": action }));
        assert_eq!(status, 200, "{action}: {body}");
        body
    }

    /// The sum of a metric over its labels that contain `label` (empty = all); 0 when absent.
    ///
    /// # Panics
    /// Nobody answers.
    #[must_use]
    pub fn metric(&self, name: &str, label: &str) -> f64 {
        let (_, body) = self.try_get("/metrics").expect("an answer to GET /metrics");
        String::from_utf8_lossy(&body)
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.rsplit_once(' '))
            .filter(|(key, _)| {
                let (own, labels) = key.split_once('{').unwrap_or((key, ""));
                own == name && labels.contains(label)
            })
            .filter_map(|(_, value)| value.parse::<f64>().ok())
            .sum()
    }

    /// The live calls.
    #[must_use]
    pub fn calls(&self) -> Vec<Value> {
        items(&self.get("/v1/calls"))
    }

    /// Waits for the one live call in this state and returns its id.
    ///
    /// # Panics
    /// It does not come.
    #[must_use]
    pub fn wait_for_call(&self, state: &str) -> String {
        eventually(
            &format!("a call that is {state}"),
            Duration::from_secs(10),
            || {
                let calls = self.calls();
                let call = calls.iter().find(|call| call["state"] == state)?;
                Some(call["id"].as_str()?.to_owned())
            },
        )
    }

    /// Waits until this many recordings have ended and returns them, newest first.
    ///
    /// # Panics
    /// They do not.
    #[must_use]
    pub fn wait_for_recordings(&self, count: usize) -> Vec<Value> {
        let done = |recording: &Value| {
            ["complete", "partial", "failed"]
                .iter()
                .any(|state| recording["state"] == **state)
        };
        eventually(
            &format!("{count} finished recordings"),
            Duration::from_secs(15),
            || {
                let (status, body) = self.try_get("/v1/recordings")?;
                let list = items(&serde_json::from_slice(&body).ok()?);
                (status == 200 && list.len() == count && list.iter().all(done)).then_some(list)
            },
        )
    }

    /// A recording's WAV.
    ///
    /// # Panics
    /// It cannot be had or is not 16-bit stereo.
    #[must_use]
    pub fn wav(&self, recording: &Value) -> Stereo {
        let id = recording["id"].as_str().expect("a recording's id");
        let path = format!("/v1/recordings/{id}/wav");
        let (status, body) = self.try_get(&path).expect("an answer");
        assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
        let mut reader = hound::WavReader::new(Cursor::new(body)).expect("a WAV");
        let spec = reader.spec();
        assert_eq!((spec.channels, spec.bits_per_sample), (2, 16));
        let samples: Vec<i16> = reader
            .samples()
            .map(|sample| sample.expect("a sample"))
            .collect();
        let channel = |which: usize| samples.iter().skip(which).step_by(2).copied().collect();
        Stereo {
            rate_hz: spec.sample_rate,
            left: channel(0),
            right: channel(1),
        }
    }

    /// A recording's SN3 export.
    ///
    /// # Panics
    /// It cannot be had.
    #[must_use]
    pub fn sn3(&self, recording: &Value) -> Vec<u8> {
        let id = recording["id"].as_str().expect("a recording's id");
        let (status, body) = self
            .try_get(&format!("/v1/recordings/{id}/sn3"))
            .expect("an answer");
        assert_eq!(status, 200);
        body
    }
}

/// The items of a list.
#[must_use]
pub fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

/// A number of a JSON object.
///
/// # Panics
/// It is not there.
#[must_use]
pub fn number(value: &Value, field: &str) -> u64 {
    value[field]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {field} in {value}"))
}

/// Checks that a receipt adds up in every part, and returns what each side expected.
///
/// # Panics
/// It does not.
pub fn check_receipt(recording: &Value) -> [u64; 2] {
    let receipt = &recording["receipt"];
    let mut sums = [0; 2];
    for (side, name) in ["caller", "callee"].iter().enumerate() {
        let part = &receipt[*name];
        check_part(part);
        sums[side] = number(part, "expected");
    }
    for stream in receipt["streams"].as_array().expect("streams") {
        check_part(stream);
    }
    sums
}

fn check_part(part: &Value) {
    let (expected, written) = (number(part, "expected"), number(part, "written"));
    let (lost, dropped) = (number(part, "lost"), number(part, "dropped"));
    assert_eq!(expected, written + lost + dropped, "{part}");
    let reasons = part["dropped_by"].as_object().map_or(0, |reasons| {
        reasons.values().filter_map(Value::as_u64).sum::<u64>()
    });
    assert_eq!(reasons, dropped, "{part}");
}
