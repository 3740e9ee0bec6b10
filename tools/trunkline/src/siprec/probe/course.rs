//! The steps of a probe, one after the other.

use super::answer::{self, Judged, Line};
use super::offer::{LABELS, Sdp, Story, body};
use super::talk::{Heard, Talk, dressed};
use super::wording::{describe, refusal};
use crate::siprec::net::is_refused;
use crate::siprec::report::{Finding, Report, Verdict};
use std::sync::Arc;
use std::time::Duration;
use trunkline_rtpgen::media::{Media, StreamId, StreamReport};
use trunkline_sip::digest::{Challenge, DigestClient, Exchange};
use trunkline_sip::message::{Method, Request, Response, Uri};
use trunkline_sip::transaction::{ClientTx, Transport};
use trunkline_siprec::metadata::{MEDIA_TYPE, write};

/// How long a client that stays with the defaults waits for a recorder (`answer_timeout_ms`).
const ANSWER_MS: f64 = 2000.0;
/// Bytes of a request that may go by UDP.
const DATAGRAM_BYTES_MAX: usize = 1300;
/// The pause of a recording.
const PAUSE: Duration = Duration::from_millis(700);
/// Time in which a recorder may be expected to send RTCP (RFC 3550 section 6.2: 5 s).
const RTCP_WAIT_S: u64 = 6;

/// The course cannot go on; the report says why.
struct Over;

/// A probe under way.
pub(super) struct Probe {
    pub(super) uri: Uri,
    pub(super) talk: Talk,
    pub(super) report: Report,
    pub(super) media: Arc<Media>,
    pub(super) streams: [StreamId; 2],
    pub(super) sdp: Sdp,
    pub(super) story: Story,
    /// How long the tones last, before the pause and after it.
    pub(super) length: Duration,
    /// What the recorder says it is.
    pub(super) server: Option<String>,
    /// Methods that it takes; empty where it does not say.
    pub(super) allows: Vec<String>,
    /// What was sent and came back.
    pub(super) sent: [StreamReport; 2],
    /// The session was established.
    pub(super) stood: bool,
}

impl Probe {
    /// From OPTIONS to BYE.
    pub(super) async fn run(&mut self) {
        let _ = self.course().await;
        if self.talk.is_interrupted() {
            let text = "ended by the user before all was tried";
            self.add("probe", Verdict::Fail, "", text);
        }
        for (place, stream) in self.streams.into_iter().enumerate() {
            self.media.quiet(stream);
            // Packets under way may still be answered by RTCP.
            self.sent[place] = self.media.close(stream).await;
        }
        self.close().await;
        if self.stood {
            self.judge_media();
        }
    }

    async fn course(&mut self) -> Result<(), Over> {
        self.reach().await?;
        let lines = self.open().await?;
        self.speak(&lines).await?;
        self.listens(&lines);
        self.pause().await?;
        let lines = self.resume().await?;
        self.update().await?;
        self.speak(&lines).await
    }

    fn add(
        &mut self,
        step: &'static str,
        verdict: Verdict,
        rfc: &'static str,
        text: impl Into<String>,
    ) {
        self.report.add(Finding::new(step, verdict, rfc, text));
    }

    fn add_timed(
        &mut self,
        step: &'static str,
        verdict: Verdict,
        rfc: &'static str,
        text: impl Into<String>,
        took_ms: f64,
    ) {
        self.report.add(Finding {
            took_ms: Some(took_ms),
            ..Finding::new(step, verdict, rfc, text)
        });
    }

    /// Asks by OPTIONS whether anybody is there.
    async fn reach(&mut self) -> Result<(), Over> {
        const RFC: &str = "RFC 3261 11.2";
        let request = self.first_request(Method::Options, 1);
        match self.talk.ask(request).await.0 {
            Heard::Answer(response, took_ms) => {
                self.note_server(&response);
                let says = describe(&response);
                let knows = response.headers.list_contains("Supported", "siprec")
                    || response
                        .headers
                        .get("Accept")
                        .is_some_and(|text| text.contains(MEDIA_TYPE));
                let (verdict, text) = match response.status {
                    200..300 if knows => {
                        (Verdict::Pass, format!("OPTIONS: {says}, and says siprec"))
                    }
                    200..300 => (
                        Verdict::Pass,
                        format!("OPTIONS: {says}, says nothing of siprec"),
                    ),
                    _ => (
                        Verdict::Warn,
                        format!(
                            "OPTIONS: {says}; clients that ask for health by it see a dead server"
                        ),
                    ),
                };
                self.add_timed("reachable", verdict, RFC, text, took_ms);
                Ok(())
            }
            Heard::Silence => {
                let wait_ms = self.talk.patience.as_millis();
                self.add(
                    "reachable",
                    Verdict::Warn,
                    RFC,
                    format!("no answer to OPTIONS in {wait_ms} ms"),
                );
                Ok(())
            }
            Heard::Unsent => {
                let remote = self.talk.hop.1;
                let text = format!("nobody is reached at {remote}");
                self.add("reachable", Verdict::Fail, RFC, text);
                Err(Over)
            }
            Heard::Interrupted => Err(Over),
        }
    }

    /// A request outside a dialog.
    fn first_request(&self, method: Method, cseq: u32) -> Request {
        let talk = &self.talk;
        // The password is for challenges alone.
        let user = self.uri.user_decoded();
        let target = self.uri.with_user(user.as_deref());
        let from = format!("<sip:probe@{}>;tag={}", talk.agent.local(), talk.tag);
        let cseq = format!("{cseq} {}", method.as_str());
        let request = Request::new(method, target.clone())
            .with("From", from)
            .with("To", format!("<{target}>"))
            .with("Call-ID", &talk.call_id)
            .with("CSeq", cseq);
        dressed(request, &talk.contact())
    }

    fn note_server(&mut self, response: &Response) {
        let headers = &response.headers;
        let said = headers.get("Server").or_else(|| headers.get("User-Agent"));
        if let Some(said) = said {
            self.server = Some(said.into_owned());
        }
        if headers.contains("Allow") {
            self.allows = headers.list("Allow");
        }
    }

    /// The INVITE with two lines and a complete document.
    async fn open(&mut self) -> Result<[Line; 2], Over> {
        const RFC: &str = "RFC 7866 6.1.1";
        let sdp = self.sdp.next(true);
        self.talk.sdp.clone_from(&sdp);
        let document = self.story.complete();
        let (kind, bytes) = body(&sdp, &document);
        let invite = self
            .first_request(Method::Invite, 2)
            .with("Require", "siprec")
            .with_body(&kind, bytes);
        let length = invite.to_bytes().len();
        if self.talk.hop.0 == Transport::Udp && length > DATAGRAM_BYTES_MAX {
            let text =
                format!("the INVITE has {length} bytes: over networks it needs transport=tcp");
            self.add("size", Verdict::Note, "RFC 3261 18.1.1", text);
        }
        let (response, took_ms, tx) = self.invite("invite", invite, RFC).await?;
        let says = describe(&response);
        if took_ms > ANSWER_MS {
            let text =
                format!("INVITE: {says}, later than clients wait by default ({ANSWER_MS:.0} ms)");
            self.add_timed("invite", Verdict::Warn, RFC, text, took_ms);
        } else {
            self.add_timed(
                "invite",
                Verdict::Pass,
                RFC,
                format!("INVITE: {says}"),
                took_ms,
            );
        }
        self.talk.acknowledge(tx);
        self.stood = true;
        self.story.accepted(&document);
        self.judge_contact(&response);
        let judged = answered(&response, true);
        let lines = judged.lines;
        judged
            .findings
            .into_iter()
            .for_each(|one| self.report.add(one));
        match lines {
            [Some(one), Some(two)] => Ok([one, two]),
            _ => Err(Over),
        }
    }

    fn judge_contact(&mut self, response: &Response) {
        const RFC: &str = "RFC 7866 6.2";
        let contact = response
            .headers
            .get("Contact")
            .unwrap_or_default()
            .into_owned();
        let parameters = contact
            .rsplit_once('>')
            .map_or(contact.as_str(), |(_, rest)| rest);
        if parameters.to_ascii_lowercase().contains("+sip.srs") {
            self.add("contact", Verdict::Pass, RFC, "says +sip.srs");
        } else {
            let text = format!("no +sip.srs in Contact {contact:?}");
            self.add("contact", Verdict::Warn, RFC, text);
        }
        let reachable = self
            .talk
            .dialog
            .as_ref()
            .and_then(|dialog| dialog.next_hop());
        if reachable.is_none() {
            let text = "the way within the session is a name: requests go where the first went";
            self.add("contact", Verdict::Note, "RFC 3261 12.1.2", text);
        }
    }

    /// Sends an INVITE, answers a challenge, and reports what is no 2xx. The dialog is made here.
    async fn invite(
        &mut self,
        step: &'static str,
        invite: Request,
        rfc: &'static str,
    ) -> Result<(Response, f64, ClientTx), Over> {
        let mut request = invite;
        let mut challenged = false;
        loop {
            let (heard, tx) = self.talk.ask(request.clone()).await;
            match (heard, tx) {
                (Heard::Answer(response, took_ms), Some(tx)) if response.is_success() => {
                    self.note_server(&response);
                    if !self.talk.establish(&request, &response) {
                        self.add(
                            step,
                            Verdict::Fail,
                            "RFC 3261 12.1.2",
                            "the 200 has no usable Contact: no session",
                        );
                        return Err(Over);
                    }
                    return Ok((response, took_ms, tx));
                }
                (Heard::Answer(response, took_ms), _) => {
                    let retry = if challenged {
                        None
                    } else {
                        self.authorized(&request, &response)
                    };
                    let Some(again) = retry else {
                        let text = refusal(&response);
                        self.add_timed(step, Verdict::Fail, rfc, text, took_ms);
                        return Err(Over);
                    };
                    challenged = true;
                    request = again;
                }
                (Heard::Silence, _) => {
                    let wait_ms = self.talk.patience.as_millis();
                    self.add(
                        step,
                        Verdict::Fail,
                        rfc,
                        format!("no final answer to INVITE in {wait_ms} ms"),
                    );
                    return Err(Over);
                }
                (Heard::Unsent, _) => {
                    let remote = self.talk.hop.1;
                    self.add(
                        step,
                        Verdict::Fail,
                        rfc,
                        format!("nobody is reached at {remote}"),
                    );
                    return Err(Over);
                }
                (Heard::Interrupted, _) => return Err(Over),
            }
        }
    }

    /// The request again with credentials, where the URI has some and the answer asks for them.
    fn authorized(&self, request: &Request, response: &Response) -> Option<Request> {
        let (asks, gives) = match response.status {
            401 => ("WWW-Authenticate", "Authorization"),
            407 => ("Proxy-Authenticate", "Proxy-Authorization"),
            _ => return None,
        };
        let user = self.uri.user_decoded()?;
        let challenge = Challenge::strongest(&response.headers, asks)?;
        let mut client =
            DigestClient::new(&user, self.uri.password()?, challenge, &mut rand::rng());
        let exchange = Exchange {
            method: request.method.as_str(),
            uri: request.uri.as_str(),
            body: &request.body,
        };
        let mut again = request.clone();
        again.headers.set(gives, client.answer(&exchange));
        let cseq = request.headers.cseq().ok()?;
        again.headers.set(
            "CSeq",
            format!("{} {}", cseq.number + 1, request.method.as_str()),
        );
        Some(again)
    }

    /// The tones, for the length of a passage.
    async fn speak(&mut self, lines: &[Line; 2]) -> Result<(), Over> {
        for (stream, line) in self.streams.iter().zip(lines) {
            if line.receives {
                self.media.send_as(*stream, line.payload_type);
                self.media.send_to(*stream, line.rtp);
            }
        }
        let stays = self.talk.pass(self.length).await;
        self.snapshot().await?;
        if stays { Ok(()) } else { self.ended() }
    }

    /// What is left to say when the recorder or the user ends it.
    fn ended(&mut self) -> Result<(), Over> {
        if let Some(reason) = self.talk.left.clone() {
            let text = match reason.as_str() {
                "" => "the recorder ended the session".to_owned(),
                reason => format!("the recorder ended the session: {reason}"),
            };
            self.add("session", Verdict::Fail, "", text);
        }
        Err(Over)
    }

    /// Whether somebody listens where the streams go: an empty datagram draws an ICMP error otherwise.
    fn listens(&mut self, lines: &[Line; 2]) {
        for (line, label) in lines.iter().zip(LABELS) {
            if is_refused(line.rtp) {
                let text = format!(
                    "nobody listens on {}, where label {label} is to go",
                    line.rtp
                );
                self.add("listens", Verdict::Fail, "RFC 3264 6", text);
            }
        }
    }

    /// Answers a request for a full document by one (RFC 7866 section 9.2).
    async fn snapshot(&mut self) -> Result<(), Over> {
        if !std::mem::take(&mut self.talk.wants_snapshot) || self.talk.left.is_some() {
            return Ok(());
        }
        let document = self.story.complete();
        self.tell(
            "snapshot",
            &write(&document),
            "the full document that it asked for",
        )
        .await
    }

    /// Packets stop, then the recorder is told.
    async fn pause(&mut self) -> Result<(), Over> {
        for stream in self.streams {
            self.media.quiet(stream);
        }
        self.reoffer("pause", false).await?;
        if self.talk.pass(PAUSE).await {
            Ok(())
        } else {
            self.ended()
        }
    }

    async fn resume(&mut self) -> Result<[Line; 2], Over> {
        match self.reoffer("resume", true).await?.lines {
            [Some(one), Some(two)] => Ok([one, two]),
            _ => Err(Over),
        }
    }

    /// A re-INVITE. A refusal leaves the session as it was; what is odd in the answer is reported.
    async fn reoffer(&mut self, step: &'static str, sends: bool) -> Result<Judged, Over> {
        const RFC: &str = "RFC 7866 7.1.1.1";
        let sdp = self.sdp.next(sends);
        self.talk.sdp.clone_from(&sdp);
        let Some(request) = self.talk.request(Method::Invite) else {
            return Err(Over);
        };
        let request = request
            .with("Require", "siprec")
            .with_body("application/sdp", sdp);
        let (response, took_ms, tx) = self.invite(step, request, RFC).await?;
        self.talk.acknowledge(tx);
        let judged = answered(&response, sends);
        let mut odd = judged
            .findings
            .iter()
            .filter(|one| one.verdict > Verdict::Pass)
            .peekable();
        if odd.peek().is_none() {
            let word = if sends { "sendonly" } else { "inactive" };
            let text = format!("re-INVITE {word}: {}", describe(&response));
            self.add_timed(step, Verdict::Pass, RFC, text, took_ms);
        } else {
            let worst = odd
                .clone()
                .map(|one| one.verdict)
                .max()
                .unwrap_or(Verdict::Warn);
            let texts: Vec<String> = odd
                .map(|one| format!("{}: {}", one.step, one.text))
                .collect();
            self.add_timed(step, worst, RFC, texts.join("; "), took_ms);
        }
        Ok(judged)
    }

    /// A partial document: a party has another name.
    async fn update(&mut self) -> Result<(), Over> {
        let Some(document) = self.story.renamed() else {
            return Ok(());
        };
        self.tell("metadata", &write(&document), "a partial document")
            .await?;
        self.story.accepted(&document);
        Ok(())
    }

    /// Sends a document by UPDATE (RFC 7866 section 9.1).
    async fn tell(&mut self, step: &'static str, document: &str, what: &str) -> Result<(), Over> {
        const RFC: &str = "RFC 7866 9.1";
        let takes = self.allows.is_empty()
            || self
                .allows
                .iter()
                .any(|one| one.eq_ignore_ascii_case("UPDATE"));
        if !takes {
            let text = format!("{what} is not sent: the recorder does not take UPDATE");
            self.add(step, Verdict::Warn, RFC, text);
            return Ok(());
        }
        let Some(request) = self.talk.request(Method::Update) else {
            return Err(Over);
        };
        let request = request
            .with("Require", "siprec")
            .with("Content-Disposition", "recording-session")
            .with_body(MEDIA_TYPE, document);
        match self.talk.ask(request).await.0 {
            Heard::Answer(response, took_ms) if response.is_success() => {
                let text = format!("{what} by UPDATE: {}", describe(&response));
                self.add_timed(step, Verdict::Pass, RFC, text, took_ms);
            }
            Heard::Answer(response, took_ms) => {
                let text = format!("{what} by UPDATE: {}", refusal(&response));
                self.add_timed(step, Verdict::Fail, RFC, text, took_ms);
            }
            Heard::Silence | Heard::Unsent => {
                self.add(
                    step,
                    Verdict::Fail,
                    RFC,
                    format!("{what} by UPDATE: no answer"),
                );
            }
            Heard::Interrupted => return Err(Over),
        }
        Ok(())
    }

    /// BYE, with the document of the end; without it where that is refused.
    async fn close(&mut self) {
        const RFC: &str = "RFC 8068 3.1";
        if self.talk.left.is_some() {
            return;
        }
        let Some(bye) = self.talk.request(Method::Bye) else {
            return;
        };
        let document = self.story.stopped().map(|document| write(&document));
        let with_document = match &document {
            Some(text) => bye
                .with("Content-Disposition", "recording-session")
                .with_body(MEDIA_TYPE, text.clone()),
            None => bye,
        };
        match self.talk.bye(with_document).await {
            Heard::Answer(response, took_ms) if response.is_success() => {
                let text = format!("BYE with the last document: {}", describe(&response));
                self.add_timed("bye", Verdict::Pass, RFC, text, took_ms);
            }
            Heard::Answer(response, took_ms) => {
                let text = format!("BYE with a document: {}", refusal(&response));
                self.add_timed("bye", Verdict::Warn, RFC, text, took_ms);
                if let Some(plain) = self.talk.request(Method::Bye) {
                    self.talk.bye(plain).await;
                }
            }
            _ => self.add("bye", Verdict::Fail, "RFC 3261 15", "no answer to BYE"),
        }
    }

    /// What was sent, and what came back by RTP and RTCP.
    fn judge_media(&mut self) {
        let sent = self.sent.each_ref().map(|one| one.sent);
        let text = format!("{} and {} packets sent", sent[0], sent[1]);
        self.add("media", Verdict::Note, "", text);
        let back: u64 = self.sent.iter().map(|one| one.received.packets).sum();
        if back > 0 {
            let text =
                format!("{back} RTP packets came back from the recorder, which only receives");
            self.add("media", Verdict::Warn, "RFC 7866 7.2", text);
        }
        const RFC: &str = "RFC 7866 8.1.1";
        let reports = self.sent.each_ref().map(|one| one.received.rtcp);
        let spoken_s = 2 * self.length.as_secs();
        match reports {
            [0, 0] if spoken_s < RTCP_WAIT_S => {
                let text = format!("no RTCP came in {spoken_s} s of sound, which may be too short");
                self.add("rtcp", Verdict::Note, RFC, text);
            }
            [0, 0] => self.add("rtcp", Verdict::Warn, RFC, "no RTCP came from the recorder"),
            [one, two] => {
                let text = format!("{one} and {two} RTCP packets came from the recorder");
                self.add("rtcp", Verdict::Pass, RFC, text);
            }
        }
        let asked = std::mem::take(&mut self.talk.asked);
        if !asked.is_empty() {
            let text = format!("the recorder asked {}", asked.join(", "));
            self.add("asked", Verdict::Note, "", text);
        }
    }
}

fn answered(response: &Response, sends: bool) -> Judged {
    let kind = response.headers.get("Content-Type").unwrap_or_default();
    answer::judge(&kind, &response.body, sends)
}
