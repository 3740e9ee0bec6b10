//! `kind = "webhook"`: a signed request for each finished recording.

use super::http::{Http, causes};
use super::making::hex;
use super::{Place, failed, hours};
use crate::Timestamp;
use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::Sha256;
use std::time::{Duration, Instant};
use trunkline_config::{Secret, WebhookSink};
use trunkline_hooks::{CallMeta, FinishError, RecordingArtifact, RecordingResult, RecordingSink};

/// What the request tells.
const EVENT: &str = "recording.finished";

pub(super) struct Webhook {
    place: Place,
    url: Secret,
    secret: Option<Secret>,
    http: Http,
    patience: Duration,
    parallel: usize,
}

impl Webhook {
    pub(super) fn new(settings: &WebhookSink, place: Place) -> Result<Self, String> {
        Ok(Self {
            http: Http::new(settings.delivery.timeout_s, settings.authorities.as_deref())?,
            url: settings.url.clone(),
            secret: settings.secret.clone(),
            patience: hours(settings.delivery.give_up_after_h),
            parallel: settings.delivery.parallel as usize,
            place,
        })
    }

    fn post(&self, delivery: &str, body: Vec<u8>) -> Result<(), FinishError> {
        let mut request = self
            .http
            .client()
            .post(&self.url.0)
            .header("Content-Type", "application/json")
            .header("Trunkline-Event", EVENT)
            .header("Trunkline-Delivery", delivery);
        if let Some(secret) = &self.secret {
            let at = Timestamp::now().0 / 1000;
            let signature = format!("t={at},v1={}", signature(secret, at, &body));
            request = request.header("Trunkline-Signature", signature);
        }
        let request = request.body(body);
        let answered = self.http.run(async move {
            // Not with the URL, which may hold a secret: this goes into logs and lists.
            let told = |error: reqwest::Error| causes(&error.without_url());
            let response = request.send().await.map_err(told)?;
            let status = response.status();
            // An answer that breaks off is none: the other side may have died over it.
            let read = response.bytes().await;
            read.map_err(|error| format!("the answer breaks off: {}", told(error)))?;
            Ok::<_, String>(status)
        });
        match answered.map_err(failed)? {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) if status.as_u16() == 410 => {
                Err(FinishError::permanent("answered 410: nobody wants it"))
            }
            Ok(status) => Err(failed(format!("answered {status}"))),
            Err(why) => Err(failed(why)),
        }
    }
}

/// HMAC-SHA256 over the time, a dot, and the body; hexadecimal.
fn signature(secret: &Secret, at: i64, body: &[u8]) -> String {
    // A key of any length will do.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret.0.as_bytes()) else {
        return String::new();
    };
    mac.update(format!("{at}.").as_bytes());
    mac.update(body);
    hex(&mac.finalize().into_bytes())
}

impl RecordingSink for Webhook {
    fn begin_recording(&self, _meta: &CallMeta, _sample_rate: u32, _codec: &str) -> bool {
        false
    }

    fn takes_pcm(&self) -> bool {
        false
    }

    fn reads_payload(&self) -> bool {
        false
    }

    fn patience(&self) -> Duration {
        self.patience
    }

    fn parallel(&self) -> usize {
        self.parallel
    }

    fn finish_recording(
        &self,
        artifact: &RecordingArtifact,
        _deadline: Instant,
    ) -> Result<RecordingResult, FinishError> {
        let id = &artifact.recording;
        let Some(entry) = self.place.entry(id)? else {
            return Ok(RecordingResult::default());
        };
        // The same over all attempts, so that a receiver can tell a repetition.
        let delivery = format!("{id}.{}", self.place.name);
        let mut told = entry.to_json().map_err(failed)?;
        told["event"] = EVENT.into();
        told["delivery"] = delivery.as_str().into();
        told["at"] = json!(Timestamp::now());
        told["copies"] = json!(self.place.library.copies(id).map_err(failed)?);
        let body = serde_json::to_vec(&told).map_err(failed)?;
        self.post(&delivery, body)?;
        Ok(RecordingResult::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_those_of_rfc_4231() {
        // Test case 2 of RFC 4231 begins otherwise than our text, so the MAC is made the same way here.
        let secret = Secret("Jefe".to_owned());
        let mut mac = Hmac::<Sha256>::new_from_slice(b"Jefe").unwrap();
        mac.update(b"what do ya want for nothing?");
        assert_eq!(
            hex(&mac.finalize().into_bytes()),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        let mut mac = Hmac::<Sha256>::new_from_slice(b"Jefe").unwrap();
        mac.update(b"1764295805.{}");
        assert_eq!(
            signature(&secret, 1_764_295_805, b"{}"),
            hex(&mac.finalize().into_bytes())
        );
    }
}
