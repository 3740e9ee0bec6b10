//! A route's `headers`: which of them cross from one leg to the other.

use crate::reader::{Item, Report, Section};
use crate::route::is_token;
use toml::de::DeValue;

/// Headers that belong to one leg, one hop or one body, or that promise what only the other side
/// could keep. They cross under no policy: where they are needed we write our own.
const OURS: &[&str] = &[
    "Via",
    "From",
    "To",
    "Call-ID",
    "CSeq",
    "Contact",
    "Content-Length",
    "Content-Type",
    "Content-Disposition",
    "Content-Encoding",
    "Max-Forwards",
    "Route",
    "Record-Route",
    "Path",
    "Service-Route",
    "Supported",
    "Require",
    "Proxy-Require",
    "Unsupported",
    "Allow",
    "Allow-Events",
    "Session-Expires",
    "Min-SE",
    "RSeq",
    "RAck",
    "Replaces",
    "Refer-To",
    "Refer-Sub",
    "Timestamp",
    "Retry-After",
    "Warning",
    "Security-Client",
    "Security-Server",
    "Security-Verify",
];

/// Names of the software: `transparent` lets them cross.
const SOFTWARE: &[&str] = &["User-Agent", "Server", "Organization"];

/// What `strict` lets cross: identity, the call's history and its correlation.
const STRICT: &[&str] = &[
    "P-Asserted-Identity",
    "P-Preferred-Identity",
    "Remote-Party-ID",
    "Privacy",
    "Identity",
    "Diversion",
    "History-Info",
    "Referred-By",
    "Session-ID",
    "User-to-User",
    "Reason",
    "Priority",
    "Resource-Priority",
    "Geolocation",
    "Geolocation-Routing",
    "P-Early-Media",
    "P-Charging-Vector",
    "Alert-Info",
    "Subject",
    "Date",
    "Event",
    "Subscription-State",
    "Info-Package",
    "WWW-Authenticate",
    "Proxy-Authenticate",
    "Authorization",
    "Proxy-Authorization",
];

/// A named starting point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Preset {
    /// Everything except what belongs to a leg, a hop or a body, and the software's names.
    #[default]
    Default,
    /// The software's names too.
    Transparent,
    /// Only identity, history and correlation.
    Strict,
    /// Nothing.
    None,
}

/// Which headers cross.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeaderPolicy {
    /// The starting point.
    pub preset: Preset,
    /// Names that cross beside the preset's.
    pub pass: Vec<String>,
    /// Names that do not cross, whatever the preset says.
    pub drop: Vec<String>,
    /// Headers that every INVITE to a target of the route carries, in place of one of that name.
    pub set: Vec<(String, String)>,
}

fn named(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

impl HeaderPolicy {
    /// Whether a header of this name (in its long form) crosses.
    #[must_use]
    pub fn crosses(&self, name: &str) -> bool {
        let listed = |names: &[String]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        if named(OURS, name) || listed(&self.drop) {
            return false;
        }
        listed(&self.pass)
            || match self.preset {
                Preset::Default => !named(SOFTWARE, name),
                Preset::Transparent => true,
                Preset::Strict => named(STRICT, name),
                Preset::None => false,
            }
    }
}

fn preset(name: &str) -> Result<Preset, String> {
    match name {
        "default" => Ok(Preset::Default),
        "transparent" => Ok(Preset::Transparent),
        "strict" => Ok(Preset::Strict),
        "none" => Ok(Preset::None),
        _ => Err(format!(
            "{name:?} is not one of \"default\", \"transparent\", \"strict\", \"none\""
        )),
    }
}

/// Reads `headers`: a preset's name, or a table with `preset`, `pass`, `drop` and `set`.
pub(crate) fn read(item: &Item<'_>, report: &mut Report<'_>) -> HeaderPolicy {
    let mut policy = HeaderPolicy::default();
    let DeValue::Table(table) = item.value.get_ref() else {
        if let Some(text) = item.string(report) {
            policy.preset = text.map(report, preset).unwrap_or_default();
        }
        return policy;
    };
    let mut section = Section::new(&item.key, item.at, table);
    if let Some(text) = section.take("preset").and_then(|item| item.string(report)) {
        policy.preset = text.map(report, preset).unwrap_or_default();
    }
    if let Some(item) = section.take("pass") {
        policy.pass = read_names(&item, report);
        for name in policy.pass.iter().filter(|name| named(OURS, name)) {
            item.complain(
                report,
                format!("{name} is ours on each leg and cannot cross"),
            );
        }
    }
    if let Some(item) = section.take("drop") {
        policy.drop = read_names(&item, report);
    }
    if let Some(item) = section.take("set") {
        policy.set = read_set(&item, report);
    }
    section.finish(report);
    policy
}

/// A list of header names.
pub(crate) fn read_names(item: &Item<'_>, report: &mut Report<'_>) -> Vec<String> {
    let mut names = Vec::new();
    for text in item.strings(report).unwrap_or_default() {
        let name = text.map(report, check_name);
        names.extend(name);
    }
    names
}

fn check_name(name: &str) -> Result<String, String> {
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("{name:?} is no header name"));
    }
    Ok(name.to_owned())
}

fn read_set(item: &Item<'_>, report: &mut Report<'_>) -> Vec<(String, String)> {
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
        match check_name(name.get_ref()) {
            Err(why) => header.complain(report, why),
            Ok(name) if named(OURS, &name) => {
                header.complain(report, format!("{name} is ours on each leg"));
            }
            Ok(name) => {
                let value = header.string(report).and_then(|text| {
                    text.map(report, |value| match value.chars().any(char::is_control) {
                        true => Err("must be one line".to_owned()),
                        false => Ok(value.to_owned()),
                    })
                });
                headers.extend(value.map(|value| (name, value)));
            }
        }
    }
    headers
}
