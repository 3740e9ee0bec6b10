//! `[[route]]`: which calls it is for, and where they go.

use crate::reader::{Default as Unbuilt, Item, Report, Section};
use crate::{Pattern, SipTarget, normalize_user};
use toml::de::DeValue;

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
    /// Where the call goes.
    pub next: Next,
    /// Whether it is recorded here from the answer on.
    pub record: bool,
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
}

/// Treatment of authentication between the parties.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Auth {
    /// Challenges and credentials pass unchanged.
    #[default]
    Pass,
}

impl Route {
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
pub(crate) fn read(mut section: Section<'_>, number: usize, report: &mut Report<'_>) -> Route {
    let mut route = Route {
        name: format!("route {number}"),
        user: None,
        caller: None,
        headers: Vec::new(),
        next: Next::Request,
        record: false,
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
    read_times(&mut route, &mut section, report);
    section.unbuilt(
        report,
        &[
            ("from", Unbuilt::Absent),
            ("rewrite", Unbuilt::Absent),
            ("recorders", Unbuilt::Empty),
            ("srs", Unbuilt::Empty),
            ("on_recording_failure", Unbuilt::Text("continue")),
            ("recording_grace_s", Unbuilt::Integer(5)),
            ("reroute_on", Unbuilt::Integers(&[408, 500, 502, 503, 504])),
            ("headers", Unbuilt::Text("default")),
            ("codecs", Unbuilt::Empty),
            ("transfer", Unbuilt::Text("handle")),
            ("capture_headers", Unbuilt::Empty),
            ("tenant", Unbuilt::Absent),
        ],
    );
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
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte);
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

fn read_next(item: &Item<'_>, report: &mut Report<'_>) -> Option<Next> {
    if let DeValue::Array(entries) = item.value.get_ref() {
        let [only] = &entries[..] else {
            let message = if entries.is_empty() {
                "must name a target"
            } else {
                "a list of targets: not supported yet"
            };
            item.complain(report, message);
            return None;
        };
        if only.get_ref().as_array().is_some() {
            item.complain(report, "targets rung at once: not supported yet");
            return None;
        }
        return read_next(
            &Item {
                key: item.key.clone(),
                at: only.span().start,
                value: only,
            },
            report,
        );
    }
    item.string(report)?.map(report, |target| match target {
        "request" => Ok(Next::Request),
        "registered" | "record" => Err(format!("{target:?}: not supported yet")),
        _ => SipTarget::parse(target).map(Next::Target),
    })
}

fn read_record(item: &Item<'_>, report: &mut Report<'_>) -> bool {
    match item.value.get_ref() {
        DeValue::Boolean(record) => *record,
        DeValue::String(mode) if mode == "on_demand" || mode == "keep_on_demand" => {
            item.complain(report, format!("{mode:?}: not supported yet"));
            false
        }
        _ => {
            item.complain(
                report,
                "must be true, false, \"on_demand\" or \"keep_on_demand\"",
            );
            false
        }
    }
}
