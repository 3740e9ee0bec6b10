//! Recording clients (SRC): what SIPp says for them, and the streams they send.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::Appliance;
use crate::api::{Stereo, check_receipt};
use crate::party::{Heard, Party};
use crate::process::eventually;
use crate::scenario::Scenario;
use crate::sipp::{Sipp, SippSetup};
use crate::sound::{assert_contains, decode};

/// Packets of 20 ms that a stream sends at most.
const PACKETS: u32 = 75;

/// One stream of a recording session.
#[derive(Debug)]
pub struct Stream {
    /// What sends it.
    pub party: Party,
    /// Its `a=label`; empty = none.
    pub label: String,
}

impl Stream {
    /// One with this label, unlike others of other seeds.
    #[must_use]
    pub fn new(label: &str, seed: u32) -> Self {
        Self {
            party: Party::start(PACKETS, seed),
            label: label.to_owned(),
        }
    }

    /// Its m-line, with this direction (`sendonly`).
    #[must_use]
    pub fn line(&self, direction: &str) -> String {
        let mut text = format!(
            "m=audio {} RTP/AVP 8 101\na=rtpmap:8 PCMA/8000\na=rtpmap:101 telephone-event/8000\n\
             a=ptime:20\na={direction}\n",
            self.party.port
        );
        if !self.label.is_empty() {
            let _ = writeln!(text, "a=label:{}", self.label);
        }
        text
    }
}

/// A description of these streams.
#[must_use]
pub fn description(version: u32, streams: &[&Stream], direction: &str) -> String {
    let lines: String = streams.iter().map(|one| one.line(direction)).collect();
    format!("v=0\no=SRC 7 {version} IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\nt=0 0\n{lines}")
}

/// A body of two parts as RFC 7866 writes it.
#[must_use]
pub fn multipart(sdp: &str, metadata: &str) -> String {
    format!(
        "--foobar\nContent-Type: application/sdp\n\n{sdp}\n--foobar\n\
         Content-Type: application/rs-metadata+xml\nContent-Disposition: recording-session\n\n\
         {metadata}\n--foobar--\n"
    )
}

/// The type of [`multipart`].
pub const MULTIPART: &str = "multipart/mixed;boundary=foobar";

/// Somebody in a call, with the stream that carries what it says.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// Participant id.
    pub id: &'a str,
    /// Address.
    pub aor: &'a str,
    /// Name, as XML text.
    pub name: &'a str,
    /// Stream id.
    pub stream: &'a str,
    /// Label of its m-line.
    pub label: &'a str,
}

/// A call between these, told as RFC 7865 says. `session` and `group` are ids.
#[must_use]
pub fn metadata(session: &str, group: &str, parties: &[Who<'_>]) -> String {
    let since = "<associate-time>2026-11-28T01:02:03Z</associate-time>";
    let mut text = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<recording xmlns='urn:ietf:params:xml:ns:recording:1'>\n\
         <datamode>complete</datamode>\n<group group_id=\"{group}\">{since}</group>\n\
         <session session_id=\"{session}\"><group-ref>{group}</group-ref>\
         <start-time>2026-11-28T01:02:03Z</start-time></session>\n"
    );
    for who in parties {
        let _ = writeln!(
            text,
            "<participant participant_id=\"{}\"><nameID aor=\"{}\"><name xml:lang=\"en\">{}</name></nameID></participant>",
            who.id, who.aor, who.name
        );
    }
    for who in parties {
        let _ = writeln!(
            text,
            "<stream stream_id=\"{}\" session_id=\"{session}\"><label>{}</label></stream>",
            who.stream, who.label
        );
    }
    let _ = writeln!(
        text,
        "<sessionrecordingassoc session_id=\"{session}\">{since}</sessionrecordingassoc>"
    );
    for who in parties {
        let _ = writeln!(
            text,
            "<participantsessionassoc participant_id=\"{}\" session_id=\"{session}\">{since}</participantsessionassoc>",
            who.id
        );
    }
    for who in parties {
        let mut streams = format!("<send>{}</send>", who.stream);
        for other in parties.iter().filter(|other| other.id != who.id) {
            let _ = write!(streams, "<recv>{}</recv>", other.stream);
        }
        let _ = writeln!(
            text,
            "<participantstreamassoc participant_id=\"{}\">{streams}{since}</participantstreamassoc>",
            who.id
        );
    }
    text + "</recording>\n"
}

/// The ports of the m-lines in the last 200 with a description that a SIPp has got.
#[must_use]
pub fn answered_ports(sipp: &Sipp) -> Option<Vec<u16>> {
    let trace = sipp.trace();
    let answer = trace
        .split("-----------------------------------------------")
        .filter(|block| {
            block.contains("message received")
                && block.contains("SIP/2.0 200")
                && block.contains("m=audio")
        })
        .last()?;
    let ports = answer.lines().filter_map(|line| {
        let rest = line.trim().strip_prefix("m=")?;
        rest.split_whitespace().nth(1)?.parse().ok()
    });
    Some(ports.collect())
}

/// Starts a client and waits for the ports that it is to send to.
///
/// # Panics
/// It gets no answer with this many m-lines.
#[must_use]
pub fn start(
    appliance: &Appliance,
    folder: &Path,
    name: &str,
    scenario: Scenario,
    lines: usize,
) -> (Sipp, Vec<u16>) {
    let setup = SippSetup::new(name, scenario);
    let sipp = Sipp::start(folder, setup, Some(appliance.sip_port), "srs");
    let ports = eventually("the recorder's answer", Duration::from_secs(10), || {
        answered_ports(&sipp)
    });
    assert_eq!(ports.len(), lines, "{}", sipp.trace());
    (sipp, ports)
}

/// Asserts that a channel holds what a stream sent, whole and in one piece.
///
/// # Panics
/// It does not.
pub fn assert_heard(name: &str, track: &[i16], sent: &Heard) {
    let passage = decode(&sent.said);
    assert!(passage.len() >= 160 * 20, "{name}: too little was sent");
    assert_contains(name, track, &passage);
}

/// The finished recording with its sound; its receipt adds up.
///
/// # Panics
/// It is not whole.
#[must_use]
pub fn whole(appliance: &Appliance) -> (Value, Stereo) {
    let recording = appliance.api.wait_for_recordings(1).remove(0);
    check_receipt(&recording);
    assert_eq!(recording["verdict"], "complete", "{recording}");
    let wav = appliance.api.wav(&recording);
    (recording, wav)
}
