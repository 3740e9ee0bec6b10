//! `[[recorder]]`: SIPREC servers that calls are recorded to, and what a route says of them.

use crate::reader::{Default as Unbuilt, Item, Report, Section};
use crate::route::is_token;
use crate::{IpNet, Listen, Pattern, SipTarget};
use std::net::IpAddr;
use std::sync::Arc;
use toml::de::DeValue;

/// Servers of one recorder, and recorders of one route.
const SERVERS_MAX: usize = 16;
/// Name of the recorder that a route's `srs` makes.
pub const DEFAULT_NAME: &str = "default";
/// Name under which a route lists the capture here among its recorders.
pub const LOCAL_NAME: &str = "local";
/// Means every recorder in requests of the API.
const ALL_NAME: &str = "all";
/// Headers that the recording session needs itself.
const OWN_HEADERS: [&str; 17] = [
    "Accept",
    "Allow",
    "Call-ID",
    "Contact",
    "Content-Length",
    "Content-Type",
    "CSeq",
    "From",
    "Max-Forwards",
    "Min-SE",
    "Require",
    "Route",
    "Session-Expires",
    "Supported",
    "To",
    "User-Agent",
    "Via",
];

/// When a recording session begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RecorderStart {
    /// When the call is answered.
    #[default]
    Answer,
    /// When media may flow, before the answer too.
    Early,
    /// When the INVITE comes in; inactive until media may flow.
    Invite,
}

/// How a recording session rests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RecorderPause {
    /// Packets stop, then the recorder is told `a=inactive`.
    #[default]
    Inactive,
    /// Packets go on with silence for payload, and the recorder is told nothing.
    Silence,
}

/// What becomes of what a recorder missed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Replay {
    /// The recording here has it.
    #[default]
    Off,
    /// It is sent after the call, in real time and in a recording session of its own, from the recording here.
    AfterCall,
}

/// One recorder.
#[derive(Debug, Clone)]
pub struct Recorder {
    /// Its name: the instance in events and requests.
    pub name: String,
    /// Its servers in the order in which they are tried.
    pub servers: Vec<SipTarget>,
    /// A call that it does not record is not recorded as it should be.
    pub required: bool,
    /// When a recording session begins.
    pub start: RecorderStart,
    /// Longest wait for a server's final answer to the INVITE, in milliseconds.
    pub answer_timeout_ms: u32,
    /// Final responses by which the recorder declines the call: no other server is tried.
    pub skip_failover: Option<Pattern>,
    /// How it rests.
    pub pause: RecorderPause,
    /// One recording session carries its calls.
    pub persistent: bool,
    /// What becomes of what it missed.
    pub replay: Replay,
    /// Names of the audio codecs that are offered to it; empty = the call's.
    pub codecs: Vec<String>,
    /// From where it may open recording sessions of our calls itself; empty = it may not.
    pub asks_from: Vec<IpNet>,
    /// What OpenSIPS calls the instance's `$siprec`.
    pub settings: Settings,
}

/// What a recorder is told beside the call itself. Everything is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Id of the communication session group; without it there is none.
    pub group: Option<String>,
    /// Who the caller is: a name-addr, or XML `<nameID>` elements; without it the caller's From.
    pub caller: Option<String>,
    /// Who the callee is, likewise.
    pub callee: Option<String>,
    /// Address in the recording session's SDP; without it the media interface's.
    pub media_address: Option<IpAddr>,
    /// Headers added to the INVITE.
    pub headers: Vec<(String, String)>,
    /// The listener from which requests go out.
    pub socket: Option<Listen>,
    /// URI in From; without it ours.
    pub from_uri: Option<String>,
    /// URI in To; without it the server's.
    pub to_uri: Option<String>,
    /// An XML element put into the group, where there is one.
    pub group_extension: Option<String>,
    /// An XML element put into the session.
    pub session_extension: Option<String>,
}

/// What becomes of a call whose required recorders fail.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnRecordingFailure {
    /// It goes on.
    #[default]
    Continue,
    /// It is refused before the callee is called, unless every required recorder accepts it.
    Reject,
    /// It ends once the last required recorder has been lost for the route's grace.
    Hangup,
}

impl Recorder {
    /// A recorder of which only the name and the servers are given.
    #[must_use]
    pub fn new(name: &str, servers: Vec<SipTarget>) -> Self {
        Self {
            name: name.to_owned(),
            servers,
            required: false,
            start: RecorderStart::Answer,
            answer_timeout_ms: 2000,
            skip_failover: None,
            pause: RecorderPause::Inactive,
            persistent: false,
            replay: Replay::Off,
            codecs: Vec::new(),
            asks_from: Vec::new(),
            settings: Settings::default(),
        }
    }

    /// Whether it may open recording sessions from this address.
    #[must_use]
    pub fn may_ask(&self, source: IpAddr) -> bool {
        self.asks_from.iter().any(|net| net.contains(&source))
    }
}

/// Reads one `[[recorder]]`.
pub(crate) fn read(mut section: Section<'_>, report: &mut Report<'_>) -> Recorder {
    let mut recorder = Recorder::new("", Vec::new());
    match section.take("name").and_then(|item| item.string(report)) {
        Some(text) => {
            if let Some(name) = text.map(report, check_name) {
                recorder.name = name;
            }
        }
        None => report.add(section.at, "recorder.name", "is missing"),
    }
    match section.take("servers") {
        Some(item) => recorder.servers = read_servers(&item, report),
        None => report.add(section.at, "recorder.servers", "is missing"),
    }
    if let Some(required) = section
        .take("required")
        .and_then(|item| item.boolean(report))
    {
        recorder.required = required;
    }
    if let Some(text) = section.take("start").and_then(|item| item.string(report)) {
        let start = text.map(report, |word| match word {
            "answer" => Ok(RecorderStart::Answer),
            "early" => Ok(RecorderStart::Early),
            "invite" => Ok(RecorderStart::Invite),
            _ => Err(format!(
                "{word:?} is not one of \"answer\", \"early\", \"invite\""
            )),
        });
        recorder.start = start.unwrap_or_default();
    }
    if let Some(item) = section.take("answer_timeout_ms") {
        recorder.answer_timeout_ms = item.integer_u32(report, 100, 60_000).unwrap_or_default();
    }
    if let Some(text) = section
        .take("skip_failover")
        .and_then(|item| item.string(report))
        .filter(|text| !text.text.is_empty())
    {
        recorder.skip_failover = text.map(report, Pattern::anywhere);
    }
    if let Some(text) = section.take("pause").and_then(|item| item.string(report)) {
        let pause = text.map(report, |word| match word {
            "inactive" => Ok(RecorderPause::Inactive),
            "silence" => Ok(RecorderPause::Silence),
            _ => Err(format!("{word:?} is not one of \"inactive\", \"silence\"")),
        });
        recorder.pause = pause.unwrap_or_default();
    }
    if let Some(persistent) = section
        .take("persistent")
        .and_then(|item| item.boolean(report))
    {
        recorder.persistent = persistent;
    }
    if let Some(text) = section.take("replay").and_then(|item| item.string(report)) {
        let replay = text.map(report, |word| match word {
            "off" => Ok(Replay::Off),
            "after_call" => Ok(Replay::AfterCall),
            _ => Err(format!("{word:?} is not one of \"off\", \"after_call\"")),
        });
        recorder.replay = replay.unwrap_or_default();
    }
    if let Some(texts) = section.take("codecs").and_then(|item| item.strings(report)) {
        for text in &texts {
            if text.text.is_empty() || !text.text.bytes().all(is_token) {
                let message = format!("{:?} is no codec name", text.text);
                report.add(text.at, &text.key, message);
            }
        }
        recorder.codecs = texts.iter().map(|text| text.text.to_owned()).collect();
    }
    if let Some(texts) = section
        .take("asks_from")
        .and_then(|item| item.strings(report))
    {
        let nets = texts.iter();
        recorder.asks_from = nets
            .filter_map(|text| text.map(report, crate::parse::parse_net))
            .collect();
    }
    recorder.settings = read_settings(&mut section, report);
    section.unbuilt(report, &[("media", Unbuilt::Text("rtp"))]);
    section.finish(report);
    recorder
}

fn check_name(name: &str) -> Result<String, String> {
    if name.is_empty() {
        return Err("must not be empty".to_owned());
    }
    if [ALL_NAME, LOCAL_NAME].contains(&name) {
        return Err(format!("{name:?} means something else in requests"));
    }
    Ok(name.to_owned())
}

/// A list of servers in the order in which they are tried.
fn read_servers(item: &Item<'_>, report: &mut Report<'_>) -> Vec<SipTarget> {
    let Some(texts) = item.strings(report) else {
        return Vec::new();
    };
    if texts.is_empty() || texts.len() > SERVERS_MAX {
        item.complain(report, format!("must name 1 to {SERVERS_MAX} servers"));
    }
    texts
        .iter()
        .filter_map(|text| text.map(report, SipTarget::parse))
        .collect()
}

fn read_settings(section: &mut Section<'_>, report: &mut Report<'_>) -> Settings {
    let mut settings = Settings::default();
    let mut text = |name: &str, report: &mut Report<'_>| {
        let text = section.take(name).and_then(|item| item.string(report))?;
        (!text.text.is_empty()).then(|| text.text.to_owned())
    };
    settings.group = text("group", report);
    settings.caller = text("caller", report);
    settings.callee = text("callee", report);
    settings.group_extension = text("group_extension", report);
    settings.session_extension = text("session_extension", report);
    for (name, place) in [
        ("from_uri", &mut settings.from_uri),
        ("to_uri", &mut settings.to_uri),
    ] {
        let text = section.take(name).and_then(|item| item.string(report));
        if let Some(text) = text.filter(|text| !text.text.is_empty()) {
            *place = text.map(report, check_uri);
        }
    }
    let address = section.take("media_address");
    if let Some(text) = address.and_then(|item| item.string(report))
        && !text.text.is_empty()
    {
        settings.media_address = text.map(report, |address| {
            let wrong = |_| format!("{address:?} is no IP address");
            address.parse().map_err(wrong)
        });
    }
    if let Some(text) = section.take("socket").and_then(|item| item.string(report))
        && !text.text.is_empty()
    {
        settings.socket = text.map(report, crate::parse::parse_listen);
    }
    if let Some(item) = section.take("headers") {
        settings.headers = read_headers(&item, report);
    }
    settings
}

/// A URI that can stand in From or To.
///
/// # Errors
/// It is none.
pub fn check_uri(uri: &str) -> Result<String, String> {
    let (scheme, rest) = uri.split_once(':').unwrap_or(("", ""));
    let known = ["sip", "sips", "tel"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known));
    let fine = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '<' | '>' | '"');
    if known && !rest.is_empty() && rest.chars().all(fine) {
        Ok(uri.to_owned())
    } else {
        Err(format!("{uri:?} is no sip: or tel: URI"))
    }
}

/// A table of header names and values.
fn read_headers(item: &Item<'_>, report: &mut Report<'_>) -> Vec<(String, String)> {
    let mut headers = Vec::new();
    if matches!(item.value.get_ref(), DeValue::String(text) if text.is_empty()) {
        return headers;
    }
    let table = item.table(report);
    for (name, value) in table.into_iter().flat_map(|table| table.iter()) {
        let header = Item {
            key: format!("{}.{}", item.key, name.get_ref()),
            at: name.span().start,
            value,
        };
        let checked = header
            .string(report)
            .and_then(|text| text.map(report, |value| check_header(name.get_ref(), value)));
        headers.extend(checked);
    }
    headers
}

/// A header that may be added to a recording session's INVITE.
///
/// # Errors
/// No header name, a value with a line break, or a header that is ours.
pub fn check_header(name: &str, value: &str) -> Result<(String, String), String> {
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("{name:?} is no header name"));
    }
    if OWN_HEADERS.iter().any(|own| own.eq_ignore_ascii_case(name)) || name.len() == 1 {
        return Err(format!("{name} is written by the recording session itself"));
    }
    if value.chars().any(char::is_control) {
        return Err(format!(
            "the value of {name} has a line break or control character"
        ));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// What a route says of recorders.
#[derive(Debug, Clone)]
pub struct Recorders {
    /// Recorders of its calls.
    pub list: Vec<Arc<Recorder>>,
    /// The capture here is listed among them, and counts as a required one.
    pub local: bool,
    /// What becomes of a call whose required recorders fail.
    pub on_failure: OnRecordingFailure,
    /// How long a call goes on without a required recorder, with [`OnRecordingFailure::Hangup`], in seconds.
    pub grace_s: u32,
}

impl Default for Recorders {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            local: false,
            on_failure: OnRecordingFailure::Continue,
            grace_s: 5,
        }
    }
}

/// Reads a route's keys about recorders.
pub(crate) fn read_route(
    section: &mut Section<'_>,
    known: &[Arc<Recorder>],
    report: &mut Report<'_>,
) -> Recorders {
    let mut recorders = Recorders::default();
    let names = section.take("recorders");
    for text in names
        .and_then(|item| item.strings(report))
        .unwrap_or_default()
    {
        let named = |recorder: &&Arc<Recorder>| recorder.name == text.text;
        if text.text == LOCAL_NAME {
            recorders.local = true;
        } else if recorders.list.iter().any(|one| one.name == text.text) {
            report.add(
                text.at,
                &text.key,
                format!("{:?} is named twice", text.text),
            );
        } else if let Some(recorder) = known.iter().find(named) {
            recorders.list.push(Arc::clone(recorder));
        } else {
            let message = format!("no [[recorder]] is named {:?}", text.text);
            report.add(text.at, &text.key, message);
        }
    }
    if let Some(item) = section.take("srs") {
        let empty = matches!(item.value.get_ref(), DeValue::Array(list) if list.is_empty());
        if !empty {
            let servers = read_servers(&item, report);
            if recorders.list.iter().any(|one| one.name == DEFAULT_NAME) {
                let message = format!("a recorder is named {DEFAULT_NAME:?} as well");
                item.complain(report, message);
            }
            let recorder = Recorder::new(DEFAULT_NAME, servers);
            recorders.list.push(Arc::new(recorder));
        }
    }
    if let Some(text) = section
        .take("on_recording_failure")
        .and_then(|item| item.string(report))
    {
        let policy = text.map(report, |word| match word {
            "continue" => Ok(OnRecordingFailure::Continue),
            "reject" => Ok(OnRecordingFailure::Reject),
            "hangup" => Ok(OnRecordingFailure::Hangup),
            _ => Err(format!(
                "{word:?} is not one of \"continue\", \"reject\", \"hangup\""
            )),
        });
        recorders.on_failure = policy.unwrap_or_default();
    }
    if let Some(item) = section.take("recording_grace_s") {
        recorders.grace_s = item.integer_u32(report, 0, 3600).unwrap_or_default();
    }
    if recorders.on_failure != OnRecordingFailure::Continue {
        // What the shorthand makes is the recorder that such a policy is about.
        let unnamed = |one: &&mut Arc<Recorder>| one.name == DEFAULT_NAME;
        if let Some(recorder) = recorders.list.iter_mut().find(unnamed) {
            Arc::make_mut(recorder).required = true;
        }
    }
    recorders
}
