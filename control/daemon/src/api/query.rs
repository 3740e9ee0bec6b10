//! Query parameters, read strictly: what is not understood is refused, since a filter that is
//! silently ignored gives a wrong answer.

use super::error::ApiError;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use std::collections::BTreeMap;
use trunkline_sinks::Timestamp;
use trunkline_sinks::catalog::{CdrFilter, Cursor, DeliveryFilter, DeliveryState, RecordingFilter};
use trunkline_sinks::object::{CallState, RecordingState};
use trunkline_sinks::timestamp::NotADate;
use trunkline_sn3::evidence::KeyChoice;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 1000;

/// Parameters as they come from axum.
pub(super) type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// The parameters of a request; each is taken once, and none may be left.
pub(super) struct Parameters(BTreeMap<String, String>);

/// Which part of a list is wanted.
pub(super) struct Paging {
    pub(super) after: Option<Cursor>,
    pub(super) limit: usize,
}

impl Parameters {
    pub(super) fn new(pairs: Pairs) -> Result<Self, ApiError> {
        let Query(pairs) = pairs.map_err(|error| ApiError::bad_request(error.body_text()))?;
        let mut parameters = BTreeMap::new();
        for (name, value) in pairs {
            if parameters.insert(name.clone(), value).is_some() {
                return Err(ApiError::bad_request(format!("{name} is given twice")));
            }
        }
        Ok(Self(parameters))
    }

    fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    fn limit(&mut self) -> Result<usize, ApiError> {
        let Some(text) = self.take("limit") else {
            return Ok(LIMIT_DEFAULT);
        };
        let limit = text.parse().ok();
        limit
            .filter(|limit| (1..=LIMIT_MAX).contains(limit))
            .ok_or_else(|| ApiError::bad_request(format!("limit must be 1 to {LIMIT_MAX}")))
    }

    pub(super) fn paging(&mut self) -> Result<Paging, ApiError> {
        let limit = self.limit()?;
        let after = self.take("after").map(|text| text.parse()).transpose();
        let after = after.map_err(|_| not_a_cursor())?;
        Ok(Paging { after, limit })
    }

    pub(super) fn call_state(&mut self) -> Result<Option<CallState>, ApiError> {
        let Some(text) = self.take("state") else {
            return Ok(None);
        };
        let state = CallState::from_name(&text);
        state
            .map(Some)
            .ok_or_else(|| ApiError::bad_request(format!("{text:?} is no state of a call")))
    }

    /// `from` and `to`, both required.
    pub(super) fn span(&mut self) -> Result<(Timestamp, Timestamp), ApiError> {
        let from = self.date("from", Timestamp::parse)?;
        let to = self.date("to", Timestamp::parse_rounded_up)?;
        from.zip(to)
            .ok_or_else(|| ApiError::bad_request("from and to are required (RFC 3339)"))
    }

    fn date(
        &mut self,
        name: &str,
        parse: fn(&str) -> Result<Timestamp, NotADate>,
    ) -> Result<Option<Timestamp>, ApiError> {
        let text = self.take(name);
        text.map(|text| parse(&text))
            .transpose()
            .map_err(|error| ApiError::bad_request(format!("{name}: {error}")))
    }

    /// What becomes of the key of an encrypted recording.
    pub(super) fn key_choice(&mut self) -> Result<KeyChoice, ApiError> {
        match self.take("key").as_deref() {
            None | Some("withhold") => Ok(KeyChoice::Withheld),
            Some("include") => Ok(KeyChoice::Included),
            Some(_) => Err(ApiError::bad_request("key must be include or withhold")),
        }
    }

    pub(super) fn delivery_filter(&mut self) -> Result<(DeliveryFilter, usize), ApiError> {
        let limit = self.limit()?;
        let before = self.take("after").map(|text| text.parse()).transpose();
        let state = match self.take("state") {
            None => None,
            Some(text) => Some(DeliveryState::from_name(&text).ok_or_else(|| {
                ApiError::bad_request(format!("{text:?} is no state of a delivery"))
            })?),
        };
        let filter = DeliveryFilter {
            state,
            sink: self.take("sink"),
            before: before.map_err(|_| not_a_cursor())?,
        };
        Ok((filter, limit))
    }

    fn call_id(&mut self) -> Option<String> {
        self.take("call_id").map(|id| id.replace(' ', "+"))
    }

    pub(super) fn cdr_filter(&mut self) -> Result<CdrFilter, ApiError> {
        Ok(CdrFilter {
            from: self.date("from", Timestamp::parse)?,
            to: self.date("to", Timestamp::parse_rounded_up)?,
            call_id: self.call_id(),
            tenant: self.take("tenant"),
        })
    }

    pub(super) fn recording_filter(&mut self) -> Result<RecordingFilter, ApiError> {
        let mut filter = RecordingFilter {
            from: self.date("from", Timestamp::parse)?,
            to: self.date("to", Timestamp::parse_rounded_up)?,
            // Neither can hold a space, which is what an unescaped + arrives as.
            party: self.take("party").map(|prefix| prefix.replace(' ', "+")),
            call_id: self.call_id(),
            tenant: self.take("tenant"),
            ..RecordingFilter::default()
        };
        if let Some(text) = self.take("state") {
            filter.state = Some(RecordingState::from_name(&text).ok_or_else(|| {
                ApiError::bad_request(format!("{text:?} is no state of a recording"))
            })?);
        }
        while let Some(name) = self
            .0
            .keys()
            .find(|name| name.starts_with("attr."))
            .cloned()
        {
            let value = self.take(&name).unwrap_or_default();
            filter
                .attributes
                .insert(name["attr.".len()..].to_owned(), value);
        }
        Ok(filter)
    }

    pub(super) fn finish(self) -> Result<(), ApiError> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => Err(ApiError::bad_request(format!("unknown parameter {name}"))),
        }
    }
}

fn not_a_cursor() -> ApiError {
    ApiError::bad_request("after is not a cursor of this list; use what `next` said")
}
