//! `[[route]]`: which calls it is for, and where they go.

use crate::indication::{self, Indication};
use crate::policy::{self, HeaderPolicy};
use crate::reader::{Default as Unbuilt, Item, Report, Section};
use crate::recorder::{self, OnRecordingFailure, Recorder, Recorders};
use crate::{Pattern, SipTarget, normalize_user};
use std::sync::Arc;
use toml::de::DeValue;

/// Final responses after which the next target is tried, unless the route says otherwise.
const REROUTE_ON: [u16; 5] = [408, 500, 502, 503, 504];
/// Targets of one group, and groups of one route.
const TARGETS_MAX: usize = 16;
/// Headers that one route may capture.
const CAPTURED_MAX: usize = 32;

/// Whether a byte may stand in a token (RFC 3261 section 25.1).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte)
}

/// Whether a route's calls are captured here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Record {
    /// Not by itself.
    #[default]
    No,
    /// From the answer on.
    Yes,
    /// When somebody asks for it.
    OnDemand,
    /// From the answer on, and discarded at the end unless somebody asks to keep it.
    KeepOnDemand,
}

impl Record {
    /// Capture starts without being asked for.
    #[must_use]
    pub const fn starts_itself(self) -> bool {
        matches!(self, Self::Yes | Self::KeepOnDemand)
    }
}

/// What becomes of a party's `a=recordpref` (RFC 7866).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RecordPref {
    /// Nothing.
    #[default]
    Ignore,
    /// Recording begins, rests and ends by it, except one that is required.
    Honour,
}

/// One route. All conditions must hold; an absent one always does.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its name, `route N` (from 1) where it has none.
    pub name: String,
    /// Condition on the user part of the Request-URI.
    pub user: Option<Pattern>,
    /// Condition on the caller's user part.
    pub caller: Option<Pattern>,
    /// Conditions on headers, each to be matched by any value of that header.
    pub headers: Vec<HeaderMatch>,
    /// Where the call goes: groups tried in order, the targets of one group rung at once.
    pub next: Vec<Vec<Next>>,
    /// The user part towards targets that name none: a template over `user`'s groups (`+49$1`).
    pub rewrite: Option<String>,
    /// Final responses after which the next group is tried.
    pub reroute_on: Vec<u16>,
    /// Which headers cross.
    pub header_policy: HeaderPolicy,
    /// Names of the audio codecs that cross; empty = all.
    pub codecs: Vec<String>,
    /// What becomes of a REFER.
    pub transfer: Transfer,
    /// Headers of the INVITE that become attributes of the call.
    pub capture_headers: Vec<String>,
    /// The tenant its calls belong to.
    pub tenant: Option<String>,
    /// The class of its calls: their attribute `class`.
    pub class: Option<String>,
    /// Whether and how it is recorded here.
    pub record: Record,
    /// What becomes of what parties wish of recording.
    pub recordpref: RecordPref,
    /// What parties hear of their recording.
    pub indication: Option<Indication>,
    /// To whom else its calls are recorded.
    pub recorders: Arc<Recorders>,
    /// What happens to digest challenges and credentials.
    pub auth: Auth,
    /// Longest wait for a provisional response, in milliseconds.
    pub connect_timeout_ms: u32,
    /// Longest ringing, in seconds.
    pub ring_timeout_s: u32,
    /// Longest call after the answer, in seconds.
    pub duration_max_s: Option<u32>,
    /// Silence of a side that is expected to send after which the call ends, in seconds.
    pub media_timeout_s: Option<u32>,
}

/// A condition on a header.
#[derive(Debug, Clone)]
pub struct HeaderMatch {
    /// Header name as written; compared without regard to case.
    pub name: String,
    /// Pattern found anywhere in the value.
    pub pattern: Pattern,
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A plain sip: target.
    Target(SipTarget),
    /// The Request-URI's own host.
    Request,
    /// Ourselves: we are the server of a recording session (SIPREC).
    Record,
}

/// What becomes of a REFER inside a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Transfer {
    /// We carry it out.
    #[default]
    Handle,
    /// The other party gets it.
    Pass,
    /// 405.
    Refuse,
}

/// Treatment of authentication between the parties.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Auth {
    /// Challenges and credentials pass unchanged.
    #[default]
    Pass,
}

impl Route {
    /// Whether what parties wish of recording is done: never to a recording without which there would be no
    /// call (`on_recording_failure`).
    #[must_use]
    pub fn honours_wishes(&self) -> bool {
        self.recordpref == RecordPref::Honour
            && self.recorders.on_failure == OnRecordingFailure::Continue
    }

    /// Whether its calls are recording sessions that end at us.
    #[must_use]
    pub fn records_here(&self) -> bool {
        self.next.iter().flatten().eq([&Next::Record])
    }

    /// The user part towards a target that names none. `user` is as received.
    #[must_use]
    pub fn rewritten(&self, user: &str) -> Option<String> {
        let template = self.rewrite.as_ref()?;
        let user = normalize_user(user);
        Some(match &self.user {
            Some(pattern) => pattern.expand(&user, template),
            None => template.replace("$0", &user),
        })
    }

    /// Whether the route is for this request. `user` and `caller` are user parts as received,
    /// `values_of` gives a header's values.
    pub fn matches<'v, Values>(
        &self,
        user: &str,
        caller: &str,
        mut values_of: impl FnMut(&str) -> Values,
    ) -> bool
    where
        Values: IntoIterator<Item = &'v str>,
    {
        self.user
            .as_ref()
            .is_none_or(|pattern| pattern.is_match(&normalize_user(user)))
            && self
                .caller
                .as_ref()
                .is_none_or(|pattern| pattern.is_match(&normalize_user(caller)))
            && self.headers.iter().all(|header| {
                values_of(&header.name)
                    .into_iter()
                    .any(|value| header.pattern.is_match(value))
            })
    }
}

/// Reads one `[[route]]`; `number` counts from 1.
pub(crate) fn read(
    mut section: Section<'_>,
    number: usize,
    recorders: &[Arc<Recorder>],
    report: &mut Report<'_>,
) -> Route {
    let mut route = Route {
        name: format!("route {number}"),
        user: None,
        caller: None,
        headers: Vec::new(),
        next: vec![vec![Next::Request]],
        rewrite: None,
        reroute_on: REROUTE_ON.to_vec(),
        header_policy: HeaderPolicy::default(),
        codecs: Vec::new(),
        transfer: Transfer::Handle,
        capture_headers: Vec::new(),
        tenant: None,
        class: None,
        record: Record::No,
        recordpref: RecordPref::Ignore,
        indication: None,
        recorders: Arc::default(),
        auth: Auth::Pass,
        connect_timeout_ms: 4000,
        ring_timeout_s: 120,
        duration_max_s: None,
        media_timeout_s: None,
    };
    if let Some(text) = section.take("name").and_then(|item| item.string(report)) {
        if text.text.is_empty() {
            report.add(text.at, &text.key, "must not be empty");
        }
        route.name = text.text.to_owned();
    }
    if let Some(text) = section.take("user").and_then(|item| item.string(report)) {
        route.user = text.map(report, Pattern::whole);
    }
    if let Some(text) = section.take("caller").and_then(|item| item.string(report)) {
        route.caller = text.map(report, Pattern::whole);
    }
    if let Some(item) = section.take("header") {
        route.headers = read_headers(&item, report);
    }
    if let Some(next) = section
        .take("next")
        .and_then(|item| read_next(&item, report))
    {
        route.next = next;
    }
    if let Some(item) = section.take("record") {
        route.record = read_record(&item, report);
    }
    if let Some(text) = section.take("auth").and_then(|item| item.string(report)) {
        text.map(report, |mode| match mode {
            "pass" => Ok(()),
            "answer" => Err("\"answer\": not supported yet".to_owned()),
            _ => Err(format!("{mode:?} is not one of \"pass\", \"answer\"")),
        });
    }
    if let Some(text) = section
        .take("recordpref")
        .and_then(|item| item.string(report))
    {
        let policy = text.map(report, |policy| match policy {
            "ignore" => Ok(RecordPref::Ignore),
            "honour" => Ok(RecordPref::Honour),
            _ => Err(format!("{policy:?} is not one of \"ignore\", \"honour\"")),
        });
        route.recordpref = policy.unwrap_or_default();
    }
    let recorders = recorder::read_route(&mut section, recorders, report);
    if recorders.local && route.record == Record::No {
        route.record = Record::Yes;
    }
    route.recorders = Arc::new(recorders);
    route.indication = indication::read_route(&mut section, report);
    read_times(&mut route, &mut section, report);
    read_signalling(&mut route, &mut section, report);
    section.unbuilt(report, &[("from", Unbuilt::Absent)]);
    section.finish(report);
    route
}

fn read_times(route: &mut Route, section: &mut Section<'_>, report: &mut Report<'_>) {
    const DAY_S: u32 = 86_400;
    if let Some(item) = section.take("connect_timeout_ms") {
        route.connect_timeout_ms = item.integer_u32(report, 100, 600_000).unwrap_or_default();
    }
    if let Some(item) = section.take("ring_timeout_s") {
        route.ring_timeout_s = item.integer_u32(report, 1, 3600).unwrap_or_default();
    }
    if let Some(item) = section.take("duration_max_s") {
        route.duration_max_s = item.integer_u32(report, 1, 366 * DAY_S);
    }
    if let Some(item) = section.take("media_timeout_s") {
        route.media_timeout_s = item.integer_u32(report, 1, DAY_S);
    }
}

fn read_headers(item: &Item<'_>, report: &mut Report<'_>) -> Vec<HeaderMatch> {
    let mut headers = Vec::new();
    for (name, value) in item
        .table(report)
        .into_iter()
        .flat_map(|table| table.iter())
    {
        let header = Item {
            key: format!("{}.{}", item.key, name.get_ref()),
            at: name.span().start,
            value,
        };
        if name.get_ref().is_empty() || !name.get_ref().bytes().all(is_token) {
            header.complain(report, "is no header name");
            continue;
        }
        let pattern = header
            .string(report)
            .and_then(|text| text.map(report, Pattern::anywhere));
        headers.extend(pattern.map(|pattern| HeaderMatch {
            name: name.get_ref().to_string(),
            pattern,
        }));
    }
    headers
}

/// Groups of targets: a target alone, or a list whose entries are targets or lists of them.
fn read_next(item: &Item<'_>, report: &mut Report<'_>) -> Option<Vec<Vec<Next>>> {
    let DeValue::Array(entries) = item.value.get_ref() else {
        return Some(vec![vec![read_target(item, report)?]]);
    };
    let mut groups = Vec::new();
    for entry in entries.iter() {
        let entry = item.entry(entry);
        let group: Vec<Next> = match entry.value.get_ref() {
            DeValue::Array(targets) => targets
                .iter()
                .filter_map(|target| read_target(&entry.entry(target), report))
                .collect(),
            _ => read_target(&entry, report).into_iter().collect(),
        };
        check_length(&entry, &group, report);
        groups.push(group);
    }
    check_length(item, &groups, report);
    if groups.iter().flatten().count() > 1
        && groups.iter().flatten().any(|next| *next == Next::Record)
    {
        item.complain(
            report,
            "\"record\" stands alone: there is nothing to try before or after it",
        );
    }
    Some(groups)
}

fn check_length<T>(item: &Item<'_>, targets: &[T], report: &mut Report<'_>) {
    let empty = matches!(item.value.get_ref(), DeValue::Array(list) if list.is_empty());
    if empty {
        item.complain(report, "must name a target");
    } else if targets.len() > TARGETS_MAX {
        item.complain(report, format!("at most {TARGETS_MAX} targets"));
    }
}

fn read_target(item: &Item<'_>, report: &mut Report<'_>) -> Option<Next> {
    item.string(report)?.map(report, |target| match target {
        "request" => Ok(Next::Request),
        "record" => Ok(Next::Record),
        "registered" => Err(format!("{target:?}: not supported yet")),
        _ => SipTarget::parse(target).map(Next::Target),
    })
}

/// What concerns the SIP side of a route's calls.
fn read_signalling(route: &mut Route, section: &mut Section<'_>, report: &mut Report<'_>) {
    if let Some(text) = section.take("rewrite").and_then(|item| item.string(report)) {
        let groups = route.user.as_ref().map_or(1, Pattern::groups);
        route.rewrite = text.map(report, |template| check_template(template, groups));
    }
    if let Some(item) = section.take("reroute_on")
        && let Some(entries) = item.array(report)
    {
        let codes = entries.iter().filter_map(|entry| {
            let entry = item.entry(entry);
            let code = u16::try_from(entry.integer(report, 300, 699)?).ok()?;
            if matches!(code, 486 | 600 | 603) {
                entry.complain(
                    report,
                    format!("{code} is a person's answer and ends the call"),
                );
            }
            Some(code)
        });
        route.reroute_on = codes.collect();
    }
    if let Some(item) = section.take("headers") {
        route.header_policy = policy::read(&item, report);
    }
    if let Some(texts) = section.take("codecs").and_then(|item| item.strings(report)) {
        for text in &texts {
            if text.text.is_empty() || !text.text.bytes().all(is_token) {
                report.add(
                    text.at,
                    &text.key,
                    format!("{:?} is no codec name", text.text),
                );
            }
        }
        route.codecs = texts.iter().map(|text| text.text.to_owned()).collect();
    }
    if let Some(text) = section
        .take("transfer")
        .and_then(|item| item.string(report))
    {
        let transfer = text.map(report, |mode| match mode {
            "handle" => Ok(Transfer::Handle),
            "pass" => Ok(Transfer::Pass),
            "refuse" => Ok(Transfer::Refuse),
            _ => Err(format!(
                "{mode:?} is not one of \"handle\", \"pass\", \"refuse\""
            )),
        });
        route.transfer = transfer.unwrap_or_default();
    }
    if let Some(item) = section.take("capture_headers") {
        route.capture_headers = policy::read_names(&item, report);
        if route.capture_headers.len() > CAPTURED_MAX {
            item.complain(report, format!("at most {CAPTURED_MAX} headers"));
        }
    }
    let mut name = |key: &str| {
        let text = section.take(key)?.string(report)?;
        if text.text.is_empty() {
            report.add(text.at, &text.key, "must not be empty");
        }
        Some(text.text.to_owned())
    };
    (route.tenant, route.class) = (name("tenant"), name("class"));
}

/// A template's groups must be there, and what it makes must be able to stand in a URI.
fn check_template(template: &str, groups: usize) -> Result<String, String> {
    if template.is_empty() {
        return Err("must not be empty".to_owned());
    }
    let mut letters = template.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter == '$' {
            let mut digits = String::new();
            while let Some(digit) = letters.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            match digits.parse::<usize>() {
                Ok(group) if group < groups => {}
                Ok(group) => return Err(format!("`user` has no group {group}")),
                Err(_) => return Err("$ must be followed by the number of a group".to_owned()),
            }
        } else if !letter.is_ascii_graphic() || matches!(letter, '@' | ':' | '<' | '>' | '"') {
            return Err(format!("{letter:?} cannot stand in a user part"));
        }
    }
    Ok(template.to_owned())
}

fn read_record(item: &Item<'_>, report: &mut Report<'_>) -> Record {
    match item.value.get_ref() {
        DeValue::Boolean(true) => Record::Yes,
        DeValue::Boolean(false) => Record::No,
        DeValue::String(mode) if mode == "on_demand" => Record::OnDemand,
        DeValue::String(mode) if mode == "keep_on_demand" => Record::KeepOnDemand,
        _ => {
            item.complain(
                report,
                "must be true, false, \"on_demand\" or \"keep_on_demand\"",
            );
            Record::No
        }
    }
}
