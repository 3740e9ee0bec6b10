//! What is offered to a recorder: its m-lines and codecs, as the call is now.

use super::sdp::{Line, Offered};
use super::state::RecordingSession;
use super::view::Stage;

impl RecordingSession {
    /// m-lines for all that the call's sides send as RTP; those that are there stay.
    pub(super) fn lines_from_view(&mut self) {
        for stream in &self.view.streams {
            let side = stream.side as u8;
            let wanted = matches!(stream.kind.as_str(), "audio" | "video");
            let known = self.lines.iter().any(|one| {
                one.media == stream.media && one.side == side && one.kind == stream.kind
            });
            if wanted && !known {
                self.lines.push(Line {
                    media: stream.media,
                    side,
                    kind: stream.kind.clone(),
                    place: self.lines.len(),
                });
            }
        }
    }

    /// The m-lines as the call is now. `reduced`: audio only, one codec beside digits.
    pub(super) fn offer(&self, reduced: bool) -> Vec<Offered> {
        let flows = self.view.stage >= Stage::Early;
        let holds = self.paused && self.recorder.pause == trunkline_config::RecorderPause::Inactive;
        let lines = self.lines.iter().enumerate().map(|(index, line)| {
            let says = self
                .view
                .streams
                .iter()
                .find(|one| one.media == line.media && one.side == line.side());
            let side = line.side() as usize;
            let port = self.media.open.get(usize::from(line.media));
            let port = port.map_or(0, |open| open.ports[side]);
            let mut payloads = says.map(|one| one.payloads.clone()).unwrap_or_default();
            let wanted = &self.recorder.codecs;
            if line.kind == "audio" && !wanted.is_empty() {
                payloads.retain(|one| {
                    is_aside(&one.codec)
                        || wanted
                            .iter()
                            .any(|name| name.eq_ignore_ascii_case(&one.codec))
                });
            }
            drop_repeated(&mut payloads);
            if reduced {
                let mut voices = 0;
                payloads.retain(|one| {
                    let aside = is_aside(&one.codec);
                    voices += usize::from(!aside);
                    aside || voices <= 1
                });
            }
            let used = says.is_some() && payloads.iter().any(|one| !is_aside(&one.codec));
            let used = used && !(reduced && line.kind != "audio");
            Offered {
                kind: line.kind.clone(),
                port: if used { port } else { 0 },
                ptime_ms: says.map_or(0, |one| one.ptime_ms),
                sends: used && flows && !holds,
                payloads: match (payloads.is_empty(), self.offered.get(index)) {
                    (true, Some(before)) => before.payloads.clone(),
                    _ => payloads,
                },
            }
        });
        lines.collect()
    }

    pub(super) fn settings(&self) -> &trunkline_config::RecorderSettings {
        &self.recorder.settings
    }
}

/// Not a voice: digits, comfort noise.
fn is_aside(codec: &str) -> bool {
    matches!(
        trunkline_sdp::Codec::from_name(codec),
        trunkline_sdp::Codec::TelephoneEvent | trunkline_sdp::Codec::ComfortNoise
    )
}

/// A side may use two numbers for one encoding: each is kept once by number.
fn drop_repeated(payloads: &mut Vec<trunkline_sn3::facts::PayloadFact>) {
    let mut seen = Vec::new();
    payloads.retain(|one| {
        let new = !seen.contains(&one.pt);
        seen.push(one.pt);
        new
    });
}
