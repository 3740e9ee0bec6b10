//! A document as XML, in the child order RFC 7865's schema demands.

use super::NAMESPACE;
use super::model::*;
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

/// Writes a document. Whatever stands in names and addresses, the result is well-formed: markup is
/// escaped, and characters XML 1.0 cannot carry become U+FFFD.
#[must_use]
pub fn write(metadata: &Metadata) -> String {
    let mut out = Output(Writer::new_with_indent(Vec::new(), b' ', 2));
    out.event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)));
    out.open("recording", &[("xmlns", NAMESPACE)]);
    out.text(
        "datamode",
        match metadata.mode {
            DataMode::Complete => "complete",
            DataMode::Partial => "partial",
        },
    );
    for group in &metadata.groups {
        out.group(group);
    }
    for session in &metadata.sessions {
        out.session(session);
    }
    for participant in &metadata.participants {
        out.participant(participant);
    }
    for stream in &metadata.streams {
        out.stream(stream);
    }
    for one in &metadata.session_recordings {
        out.open(
            "sessionrecordingassoc",
            &[("session_id", one.session.as_str())],
        );
        out.times(&one.times);
        out.extensions(&one.extensions);
        out.close("sessionrecordingassoc");
    }
    for one in &metadata.participant_sessions {
        out.participant_session(one);
    }
    for one in &metadata.participant_streams {
        out.participant_streams(one);
    }
    out.extensions(&metadata.extensions);
    out.close("recording");
    String::from_utf8(out.0.into_inner()).expect("only text was written")
}

/// What XML 1.0 can carry (section 2.2), the rest as U+FFFD.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' | '\n' | '\r' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' => c,
            '\u{10000}'..='\u{10FFFF}' => c,
            _ => '\u{FFFD}',
        })
        .collect()
}

struct Output(Writer<Vec<u8>>);

impl Output {
    fn event(&mut self, event: Event<'_>) {
        self.0.write_event(event).expect("memory takes all");
    }

    fn open(&mut self, name: &str, attributes: &[(&str, &str)]) {
        self.event(Event::Start(element(name, attributes)));
    }

    fn close(&mut self, name: &str) {
        self.event(Event::End(BytesEnd::new(name)));
    }

    fn text(&mut self, name: &str, text: &str) {
        self.text_with(name, &[], text);
    }

    fn text_with(&mut self, name: &str, attributes: &[(&str, &str)], text: &str) {
        self.open(name, attributes);
        self.event(Event::Text(BytesText::new(&clean(text))));
        self.close(name);
    }

    fn times(&mut self, times: &Association) {
        if let Some(from) = &times.from {
            self.text("associate-time", from);
        }
        if let Some(until) = &times.until {
            self.text("disassociate-time", until);
        }
    }

    fn extensions(&mut self, extensions: &[Extension]) {
        for extension in extensions {
            self.event(Event::Text(BytesText::from_escaped(extension.xml.as_str())));
        }
    }

    fn group(&mut self, group: &Group) {
        self.open("group", &[("group_id", group.id.as_str())]);
        self.times(&group.times);
        self.extensions(&group.extensions);
        self.close("group");
    }

    fn session(&mut self, session: &Session) {
        self.open("session", &[("session_id", session.id.as_str())]);
        for id in &session.sip_session_ids {
            self.text("sipSessionID", id);
        }
        for reason in &session.reasons {
            let mut attributes = Vec::new();
            if let Some(protocol) = &reason.protocol {
                attributes.push(("protocol", protocol.as_str()));
            }
            if let Some(cause) = &reason.cause {
                attributes.push(("cause", cause.as_str()));
            }
            self.text_with("reason", &attributes, &reason.text);
        }
        if let Some(group) = &session.group {
            self.text("group-ref", group.as_str());
        }
        if let Some(started) = &session.started {
            self.text("start-time", started);
        }
        if let Some(stopped) = &session.stopped {
            self.text("stop-time", stopped);
        }
        self.extensions(&session.extensions);
        self.close("session");
    }

    fn participant(&mut self, participant: &Participant) {
        self.open(
            "participant",
            &[("participant_id", participant.id.as_str())],
        );
        for name in &participant.names {
            self.open("nameID", &[("aor", &name.aor)]);
            if let Some(text) = &name.name {
                let language = name.language.as_deref().map(|code| ("xml:lang", code));
                self.text_with("name", language.as_slice(), text);
            }
            self.close("nameID");
        }
        self.extensions(&participant.extensions);
        self.close("participant");
    }

    fn stream(&mut self, stream: &Stream) {
        let mut attributes = vec![("stream_id", stream.id.as_str())];
        if let Some(session) = &stream.session {
            attributes.push(("session_id", session.as_str()));
        }
        self.open("stream", &attributes);
        if let Some(label) = &stream.label {
            self.text("label", label);
        }
        self.extensions(&stream.extensions);
        self.close("stream");
    }

    fn participant_session(&mut self, one: &ParticipantSession) {
        self.open(
            "participantsessionassoc",
            &[
                ("participant_id", one.participant.as_str()),
                ("session_id", one.session.as_str()),
            ],
        );
        self.times(&one.times);
        for (name, value) in &one.params {
            self.event(Event::Empty(element(
                "param",
                &[("pname", name), ("pval", value)],
            )));
        }
        self.extensions(&one.extensions);
        self.close("participantsessionassoc");
    }

    fn participant_streams(&mut self, one: &ParticipantStreams) {
        self.open(
            "participantstreamassoc",
            &[("participant_id", one.participant.as_str())],
        );
        for id in &one.send {
            self.text("send", id.as_str());
        }
        for id in &one.recv {
            self.text("recv", id.as_str());
        }
        self.times(&one.times);
        self.extensions(&one.extensions);
        self.close("participantstreamassoc");
    }
}

fn element<'a>(name: &'a str, attributes: &[(&str, &str)]) -> BytesStart<'a> {
    let mut start = BytesStart::new(name);
    for (key, value) in attributes {
        start.push_attribute((*key, clean(value).as_str()));
    }
    start
}
