//! What a client's messages say, part by part.

use super::family::{Traits, guess};
use crate::siprec::report::{Finding, Verdict};
use trunkline_sdp::Description;
use trunkline_sip::message::Request;
use trunkline_siprec::binding::{Habits, Line, Rule, bind};
use trunkline_siprec::detect::{Sign, Signs, as_server};
use trunkline_siprec::metadata::{DataMode, Reading, Strictness, read};
use trunkline_siprec::multipart::{self, Part, parts};

/// Deviations of one document that are told.
const DEVIATIONS_SHOWN: usize = 16;

/// A message taken apart.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) offer: Option<Description>,
    pub(super) findings: Vec<Finding>,
}

/// Judges the INVITE that opens a session.
pub(super) fn invite(request: &Request) -> Told {
    let mut told = Told::default();
    let headers = &request.headers;
    let header = |name: &str| headers.get(name).unwrap_or_default().into_owned();
    let kind = header("Content-Type");
    let found = match parts(&kind, &request.body) {
        Ok(found) => found,
        Err(error) => {
            told.add("body", Verdict::Fail, "RFC 2046 5.1", error.to_string());
            Vec::new()
        }
    };
    let document = document(&kind, &request.body);
    let (agent, from, contact) = (header("User-Agent"), header("From"), header("Contact"));
    let via = header("Via");
    told.add(
        "client",
        Verdict::Note,
        "",
        format!("{agent:?} of {from}, by {via}"),
    );
    told.sign(request, document.is_some());
    told.body(&kind, &request.body, &found);
    let reading = document.as_deref().and_then(|bytes| told.document(bytes));
    told.description(&found);
    let labels = told.labels();
    let kinds: Vec<String> = found.iter().map(|one| one.content_type.clone()).collect();
    let text = document
        .as_deref()
        .map(String::from_utf8_lossy)
        .unwrap_or_default();
    let traits = Traits {
        agent: &agent,
        from: &from,
        contact: &contact,
        document: &text,
        dialect: reading.as_ref().map(|one| one.dialect),
        parts: &kinds,
        labels: &labels,
    };
    let guessed = guess(&traits);
    let crossed = guessed
        .as_ref()
        .is_some_and(|one| one.family.starts_with("Ribbon"));
    match guessed {
        Some(one) => {
            let text = format!("{}, by {}", one.family, one.because.join("; "));
            told.add("family", Verdict::Note, "", text);
        }
        None => told.add("family", Verdict::Note, "", "none that is known".to_owned()),
    }
    if let Some(reading) = reading {
        told.binding(&reading, crossed);
    }
    told
}

/// Tells what a later message brings.
pub(super) fn later(request: &Request) -> Told {
    let mut told = Told::default();
    let kind = request
        .headers
        .get("Content-Type")
        .unwrap_or_default()
        .into_owned();
    let found = parts(&kind, &request.body).unwrap_or_default();
    let sdp = found
        .iter()
        .find(|one| one.content_type == "application/sdp");
    let mut words = Vec::new();
    if let Some(sdp) = sdp {
        match Description::parse(&sdp.body) {
            Ok(offer) => {
                let directions: Vec<&str> = offer
                    .media
                    .iter()
                    .map(|one| one.direction().name())
                    .collect();
                words.push(format!("lines {}", directions.join(", ")));
                told.offer = Some(offer);
            }
            Err(error) => words.push(format!(
                "a session description that cannot be read ({error})"
            )),
        }
    }
    match document(&kind, &request.body).map(|bytes| read(&bytes, Strictness::Tolerant)) {
        Some(Ok(reading)) => words.push(format!(
            "{} document, {} deviations",
            mode(&reading),
            reading.deviations.len()
        )),
        Some(Err(error)) => words.push(format!("a document that cannot be read ({error})")),
        None => {}
    }
    if words.is_empty() {
        words.push("nothing in it".to_owned());
    }
    let text = format!("{}: {}", request.method.as_str(), words.join("; "));
    told.add("message", Verdict::Note, "", text);
    told
}

const fn mode(reading: &Reading) -> &'static str {
    match reading.metadata.mode {
        DataMode::Complete => "a complete",
        DataMode::Partial => "a partial",
    }
}

fn document(kind: &str, body: &[u8]) -> Option<Vec<u8>> {
    multipart::read(kind, body).ok()?.metadata
}

impl Told {
    fn add(&mut self, step: &'static str, verdict: Verdict, rfc: &'static str, text: String) {
        self.findings.push(Finding::new(step, verdict, rfc, text));
    }

    fn labels(&self) -> Vec<String> {
        let media = self.offer.iter().flat_map(|offer| &offer.media);
        media.map(|one| label(one).unwrap_or_default()).collect()
    }

    /// By what it is a recording session.
    fn sign(&mut self, request: &Request, has_metadata: bool) {
        const RFC: &str = "RFC 7866 6.1.1";
        let headers = &request.headers;
        let tags: Vec<String> = ["Require", "Supported"]
            .iter()
            .flat_map(|name| headers.list(name))
            .collect();
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        let contact = headers.get("Contact").unwrap_or_default();
        let signs = Signs {
            option_tags: &tags,
            contacts: &[&contact],
            accept_contacts: &[],
            has_metadata,
            is_trusted_client: true,
        };
        let (verdict, text) = match as_server(&signs, false) {
            Some(Sign::OptionAndFeature) => {
                (Verdict::Pass, "option siprec and +sip.src in Contact")
            }
            Some(Sign::Feature) => (
                Verdict::Warn,
                "+sip.src in Contact, without the option siprec",
            ),
            Some(Sign::ShortFeature) => (Verdict::Warn, "src in Contact, for +sip.src"),
            Some(Sign::Metadata) => (Verdict::Warn, "metadata alone: no +sip.src in Contact"),
            Some(Sign::Option) => (
                Verdict::Warn,
                "the option siprec, without +sip.src in Contact",
            ),
            Some(Sign::Trusted) | None => (Verdict::Warn, "nothing says that it is SIPREC"),
        };
        self.add("sign", verdict, RFC, text.to_owned());
        if !headers.list_contains("Require", "siprec") {
            let text =
                "Require without siprec: a server that does not know it takes the call as any"
                    .to_owned();
            self.add("require", Verdict::Warn, RFC, text);
        }
        let accepts = headers
            .get("Accept")
            .is_some_and(|text| text.contains("rs-metadata"));
        if !accepts {
            let text = "Accept without application/rs-metadata+xml".to_owned();
            self.add("accept", Verdict::Warn, RFC, text);
        }
    }

    /// How the body is put together.
    fn body(&mut self, kind: &str, bytes: &[u8], found: &[Part]) {
        const RFC: &str = "RFC 7866 9.1";
        let words: Vec<String> = found
            .iter()
            .map(|one| match &one.disposition {
                Some(disposition) => format!("{} ({disposition})", one.content_type),
                None => one.content_type.clone(),
            })
            .collect();
        self.add(
            "body",
            Verdict::Note,
            "",
            format!("{kind}: {}", words.join(", ")),
        );
        let mut odd = Vec::new();
        let is_multipart = kind.to_ascii_lowercase().starts_with("multipart/");
        let text = String::from_utf8_lossy(bytes);
        if is_multipart && !text.trim_end().ends_with("--") {
            odd.push("no closing boundary".to_owned());
        }
        if is_multipart && !text.starts_with("--") {
            odd.push("something before the first boundary".to_owned());
        }
        let at = |word: &str| found.iter().position(|one| one.content_type.contains(word));
        match (at("sdp"), at("rs-metadata")) {
            (Some(sdp), Some(metadata)) if metadata < sdp => {
                odd.push("metadata before the session description".to_owned());
            }
            (None, _) => odd.push("no session description".to_owned()),
            (_, None) => odd.push("no metadata".to_owned()),
            _ => {}
        }
        for one in found
            .iter()
            .filter(|one| one.content_type.contains("rs-metadata"))
        {
            if one.disposition.as_deref() != Some("recording-session") {
                odd.push("metadata without the disposition recording-session".to_owned());
            }
            if !one.content_type.ends_with("+xml") {
                odd.push(format!("the older type {}", one.content_type));
            }
        }
        for one in found {
            if one.content_type != "application/sdp" && !one.content_type.contains("rs-metadata") {
                odd.push(format!("a part of {}", one.content_type));
            }
        }
        for one in odd {
            self.add("body", Verdict::Warn, RFC, one);
        }
    }

    fn document(&mut self, bytes: &[u8]) -> Option<Reading> {
        const RFC: &str = "RFC 7865";
        let reading = match read(bytes, Strictness::Tolerant) {
            Ok(reading) => reading,
            Err(error) => {
                self.add(
                    "metadata",
                    Verdict::Fail,
                    RFC,
                    format!("it cannot be read: {error}"),
                );
                return None;
            }
        };
        let metadata = &reading.metadata;
        let text = format!(
            "{} document of the form {:?}: {} sessions, {} participants, {} streams",
            mode(&reading),
            reading.dialect,
            metadata.sessions.len(),
            metadata.participants.len(),
            metadata.streams.len()
        );
        let verdict = if reading.deviations.is_empty() {
            Verdict::Pass
        } else {
            Verdict::Note
        };
        self.add("metadata", verdict, RFC, text);
        for deviation in reading.deviations.iter().take(DEVIATIONS_SHOWN) {
            self.add("metadata", Verdict::Warn, RFC, deviation.clone());
        }
        if let Some(more) = reading.deviations.len().checked_sub(DEVIATIONS_SHOWN + 1) {
            self.add(
                "metadata",
                Verdict::Warn,
                RFC,
                format!("and {} more", more + 1),
            );
        }
        Some(reading)
    }

    fn description(&mut self, found: &[Part]) {
        let Some(sdp) = found
            .iter()
            .find(|one| one.content_type == "application/sdp")
        else {
            return;
        };
        let offer = match Description::parse(&sdp.body) {
            Ok(offer) => offer,
            Err(error) => {
                self.add(
                    "sdp",
                    Verdict::Fail,
                    "RFC 8866",
                    format!("it cannot be read: {error}"),
                );
                return;
            }
        };
        for (place, media) in offer.media.iter().enumerate() {
            let codecs: Vec<&str> = media
                .payloads
                .iter()
                .map(|one| {
                    if one.name.is_empty() {
                        "?"
                    } else {
                        one.name.as_str()
                    }
                })
                .collect();
            let label = label(media);
            let shown = label.as_deref().unwrap_or("none");
            let text = format!(
                "line {}: {} {}, label {shown}, {}, {}",
                place + 1,
                media.kind,
                media.protocol_text,
                media.direction().name(),
                codecs.join(" ")
            );
            let sends_only = media.direction().sends() && !media.direction().receives();
            let good = label.is_some() && sends_only;
            let verdict = if good { Verdict::Pass } else { Verdict::Warn };
            self.add("sdp", verdict, "RFC 7866 7.1.1", text);
        }
        if offer.media.len() == 1 {
            let text = "one line for all: the parties come mixed, or one of them only".to_owned();
            self.add("sdp", Verdict::Warn, "", text);
        }
        self.offer = Some(offer);
    }

    /// Who is heard on which line, and by which rule that is known.
    fn binding(&mut self, reading: &Reading, crossed: bool) {
        let lines: Vec<Line> = self
            .labels()
            .into_iter()
            .map(|label| Line {
                label: Some(label).filter(|label| !label.is_empty()),
            })
            .collect();
        let metadata = &reading.metadata;
        for bound in bind(metadata, reading.dialect, &lines, Habits { crossed }) {
            let who: Vec<String> = bound
                .participants
                .iter()
                .filter_map(|id| metadata.participant(id))
                .map(|one| {
                    one.names
                        .first()
                        .map_or_else(|| one.id.to_string(), |name| name.aor.clone())
                })
                .collect();
            let line = bound.line + 1;
            let (verdict, text) = match bound.rule {
                Some(Rule::SendAssociation) => (
                    Verdict::Pass,
                    format!("line {line}: {}, who sends it", who.join(", ")),
                ),
                Some(rule) => (
                    Verdict::Warn,
                    format!("line {line}: {}, by {}", who.join(", "), words(rule)),
                ),
                None => (Verdict::Warn, format!("line {line}: nobody is known on it")),
            };
            self.add("binding", verdict, "RFC 7865 6.8", text);
        }
    }
}

const fn words(rule: Rule) -> &'static str {
    match rule {
        Rule::SendAssociation => "participantstreamassoc",
        Rule::EmbeddedSend => "send within the participant, as the drafts had it",
        Rule::NotReceived => "all others being said to receive it",
        Rule::Extension => "an extension that names the calling party",
        Rule::LabelOrder => "the order of labels and participants alone",
        Rule::Order => "the order of lines and participants alone",
    }
}

fn label(media: &trunkline_sdp::Media) -> Option<String> {
    let found = media.attributes.iter().find(|one| one.is("label"))?;
    found.value.clone()
}
