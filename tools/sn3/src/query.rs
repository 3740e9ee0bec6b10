//! `--where`: which recordings of a directory are wanted.

use trunkline_sn3::Capture;

/// One condition of a query, named as in the API.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    name: String,
    value: String,
}

/// `NAME=VALUE`.
pub(crate) fn parse_condition(text: &str) -> Result<Condition, String> {
    let (name, value) = text.split_once('=').ok_or("NAME=VALUE is needed")?;
    let known = ["party", "call_id", "tenant", "from", "to", "verdict"];
    if !known.contains(&name) && !name.starts_with("attr.") {
        return Err(format!("choose {} or attr.NAME", known.join(", ")));
    }
    Ok(Condition {
        name: name.to_owned(),
        value: value.to_owned(),
    })
}

impl Condition {
    pub(crate) fn holds(&self, capture: &Capture) -> bool {
        let facts = capture.facts();
        let Some(open) = &facts.open else {
            return false;
        };
        let value = self.value.as_str();
        match self.name.as_str() {
            "party" => open.caller.starts_with(value) || open.callee.starts_with(value),
            "call_id" => {
                open.call_id == value
                    || open.session_id == value
                    || open.sip_call_ids.iter().any(|id| id == value)
            }
            "tenant" => open.tenant == value,
            // Times in UTC sort as they are written.
            "from" => open.started_at.as_str() >= value,
            "to" => open.started_at.as_str() < value,
            "verdict" => facts
                .close
                .as_ref()
                .is_some_and(|(_, c)| c.verdict == value),
            name => {
                let attribute = name.strip_prefix("attr.").unwrap_or(name);
                open.attributes.get(attribute).is_some_and(|v| v == value)
            }
        }
    }
}
