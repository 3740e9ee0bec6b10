//! `/v1/siprec`, and what concerns recorders of `/v1/calls/{id}/recording`.

use super::Shared;
use super::calls::{list_json, not_live, read_json};
use super::error::ApiError;
use super::handle::{ActionError, RecorderOrder};
use super::query::{Paging, Pairs, Parameters};
use crate::siprec::client::Chosen;
use crate::siprec::session::Session;
use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use trunkline_config::{
    DEFAULT_RECORDER, Recorder, RecorderSettings, SipTarget, check_recorder_header,
    check_recorder_uri, parse_listen,
};
use trunkline_sinks::catalog::Cursor;
use trunkline_sip::message::Method;

/// Recording sessions that are not over, newest first.
pub(super) async fn list(
    State(shared): State<Shared>,
    pairs: Pairs,
) -> Result<Json<Value>, ApiError> {
    let mut parameters = Parameters::new(pairs)?;
    let Paging { after, limit } = parameters.paging()?;
    parameters.finish()?;
    let place = |session: &Session| Cursor {
        started_at: session.started_at,
        id: session.id.clone(),
    };
    let mut sessions = shared.context.core.siprec().await?;
    sessions.retain(|one| {
        after
            .as_ref()
            .is_none_or(|after| after.precedes(&place(one)))
    });
    sessions.sort_by(|a, b| (b.started_at, &b.id).cmp(&(a.started_at, &a.id)));
    let more = sessions.len() > limit;
    sessions.truncate(limit);
    let next = sessions
        .last()
        .filter(|_| more)
        .map(|last| place(last).to_string());
    Ok(Json(list_json(sessions, next)))
}

/// One of them, also shortly after its end.
pub(super) async fn one(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Json<Session>, ApiError> {
    let session = shared.context.core.siprec_session(&id).await?;
    session
        .map(Json)
        .ok_or_else(|| ApiError::not_found("no such recording session"))
}

/// What OpenSIPS names `$siprec`, in its own words.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GivenSettings {
    group: Option<String>,
    caller: Option<String>,
    callee: Option<String>,
    #[serde(alias = "media_address")]
    media: Option<std::net::IpAddr>,
    headers: Option<GivenHeaders>,
    socket: Option<String>,
    from_uri: Option<String>,
    to_uri: Option<String>,
    #[serde(alias = "group_extension")]
    group_custom_extension: Option<String>,
    #[serde(alias = "session_extension")]
    session_custom_extension: Option<String>,
}

/// Header lines, each ended by CR LF, or a table.
#[derive(Debug, serde::Deserialize)]
#[serde(untagged)]
pub(super) enum GivenHeaders {
    Lines(String),
    Table(BTreeMap<String, String>),
}

impl GivenHeaders {
    fn pairs(self) -> Result<Vec<(String, String)>, ApiError> {
        match self {
            Self::Table(table) => Ok(table.into_iter().collect()),
            Self::Lines(text) => text
                .split("\r\n")
                .filter(|line| !line.trim().is_empty())
                .map(|line| {
                    let (name, value) = line
                        .split_once(':')
                        .ok_or_else(|| ApiError::bad_request(format!("{line:?} is no header")))?;
                    Ok((name.trim().to_owned(), value.trim().to_owned()))
                })
                .collect(),
        }
    }

    fn checked(self) -> Result<Vec<(String, String)>, ApiError> {
        self.pairs()?
            .into_iter()
            .map(|(name, value)| {
                check_recorder_header(&name, &value).map_err(ApiError::bad_request)
            })
            .collect()
    }
}

/// The recorder that a start names by its servers; `None` when it names none.
pub(super) fn given_recorder(
    name: Option<&str>,
    servers: Option<Vec<String>>,
    settings: Option<GivenSettings>,
) -> Result<Option<Arc<Recorder>>, ApiError> {
    let Some(servers) = servers else {
        return match settings {
            Some(_) => Err(ApiError::bad_request("settings are given without servers")),
            None => Ok(None),
        };
    };
    let targets: Result<Vec<SipTarget>, String> =
        servers.iter().map(|uri| SipTarget::parse(uri)).collect();
    let targets = targets.map_err(ApiError::bad_request)?;
    if targets.is_empty() || targets.len() > 16 {
        return Err(ApiError::bad_request("servers must name 1 to 16"));
    }
    let name = match name {
        None | Some("all") => DEFAULT_RECORDER,
        Some("local") => {
            return Err(ApiError::bad_request("the recording here has no servers"));
        }
        Some(name) => name,
    };
    let given = settings.unwrap_or_default();
    let headers = given.headers.map(GivenHeaders::checked).transpose()?;
    let socket = given.socket.as_deref().map(parse_listen).transpose();
    for uri in given.from_uri.iter().chain(&given.to_uri) {
        check_recorder_uri(uri).map_err(ApiError::bad_request)?;
    }
    let mut recorder = Recorder::new(name, targets);
    recorder.settings = RecorderSettings {
        group: given.group,
        caller: given.caller,
        callee: given.callee,
        media_address: given.media,
        headers: headers.unwrap_or_default(),
        socket: socket.map_err(ApiError::bad_request)?,
        from_uri: given.from_uri,
        to_uri: given.to_uri,
        group_extension: given.group_custom_extension,
        session_extension: given.session_custom_extension,
    };
    Ok(Some(Arc::new(recorder)))
}

/// Which recorders a name means.
pub(super) fn chosen(name: Option<&str>) -> Chosen {
    match name {
        None | Some("all") => Chosen::All,
        Some(name) => Chosen::Named(name.to_owned()),
    }
}

/// A request inside a recording session.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    recorder: Option<String>,
    method: Option<String>,
    headers: Option<GivenHeaders>,
    body: Option<String>,
}

pub(super) async fn message(
    State(shared): State<Shared>,
    Path(id): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let message: Message = read_json(body, "message")?;
    let method = match message.method.as_deref() {
        None | Some("INFO") => Method::Info,
        Some("MESSAGE") => Method::Message,
        Some("OPTIONS") => Method::Options,
        Some(other) => {
            let why = format!("{other:?} is not one of INFO, MESSAGE, OPTIONS");
            return Err(ApiError::bad_request(why));
        }
    };
    let mut headers = Vec::new();
    for (name, value) in message
        .headers
        .map(GivenHeaders::pairs)
        .transpose()?
        .unwrap_or_default()
    {
        let body = ["Content-Type", "Content-Disposition"]
            .iter()
            .any(|one| one.eq_ignore_ascii_case(&name));
        let bad = value.chars().any(char::is_control);
        match (body, bad) {
            (_, true) => {
                return Err(ApiError::bad_request(format!(
                    "the value of {name} is no header's"
                )));
            }
            (true, _) => headers.push((name, value)),
            _ => headers.push(check_recorder_header(&name, &value).map_err(ApiError::bad_request)?),
        }
    }
    let order = RecorderOrder::Message {
        method,
        headers,
        body: message.body.unwrap_or_default().into_bytes(),
    };
    let chosen = chosen(message.recorder.as_deref());
    let sessions = act(&shared, &id, chosen, order).await?;
    Ok(Json(list_json(sessions, None)))
}

pub(super) async fn act(
    shared: &Shared,
    call: &str,
    chosen: Chosen,
    order: RecorderOrder,
) -> Result<Vec<Session>, ApiError> {
    match shared
        .context
        .core
        .recorder_order(call, chosen, order)
        .await?
    {
        Ok(sessions) => Ok(sessions),
        Err(ActionError::NotFound) => Err(not_live(shared, call).await),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(settings: Value) -> Result<RecorderSettings, ApiError> {
        let settings = serde_json::from_value(settings).expect("known settings");
        let servers = Some(vec!["sip:127.0.0.1:5072".to_owned()]);
        let recorder = given_recorder(Some("mine"), servers, Some(settings))?;
        Ok(recorder.expect("a recorder").settings.clone())
    }

    #[test]
    fn every_setting_of_opensips_is_taken_in_its_words() {
        let settings = given(serde_json::json!({
            "group": "g",
            "caller": "<sip:a@example.com>",
            "callee": "<nameID aor=\"sip:b@example.com\"/>",
            "media": "192.0.2.7",
            "headers": "X-A: 1\r\nX-B: 2: 3\r\n",
            "socket": "udp:127.0.0.1:5060",
            "from_uri": "sip:src@example.com",
            "to_uri": "sip:srs@example.com",
            "group_custom_extension": "<a xmlns='urn:a'/>",
            "session_custom_extension": "<b xmlns='urn:b'/>",
        }));
        let text = |text: &str| Some(text.to_owned());
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = RecorderSettings {
            group: text("g"),
            caller: text("<sip:a@example.com>"),
            callee: text("<nameID aor=\"sip:b@example.com\"/>"),
            media_address: Some([192, 0, 2, 7].into()),
            headers: vec![header("X-A", "1"), header("X-B", "2: 3")],
            socket: parse_listen("udp:127.0.0.1:5060").ok(),
            from_uri: text("sip:src@example.com"),
            to_uri: text("sip:srs@example.com"),
            group_extension: text("<a xmlns='urn:a'/>"),
            session_extension: text("<b xmlns='urn:b'/>"),
        };
        assert_eq!(settings.ok(), Some(expected));
        // Without any, everything is as the call and the configuration say.
        let none = given(serde_json::json!({})).ok();
        assert_eq!(none, Some(RecorderSettings::default()));
    }

    #[test]
    fn settings_that_would_break_a_message_are_refused() {
        for wrong in [
            serde_json::json!({ "socket": "here" }),
            serde_json::json!({ "from_uri": "sip:a\r\nX: 1" }),
            serde_json::json!({ "to_uri": "nobody" }),
            serde_json::json!({ "headers": "Via: x\r\n" }),
            serde_json::json!({ "headers": { "X-A": "1\r\nX-B: 2" } }),
        ] {
            assert!(given(wrong.clone()).is_err(), "{wrong}");
        }
        let unknown = serde_json::json!({ "colour": "red" });
        assert!(serde_json::from_value::<GivenSettings>(unknown).is_err());
    }
}
