//! `…/metadata`: what a recording client told of its call (RFC 7865), document by document as it came.

use super::Shared;
use super::error::ApiError;
use super::media::{Begun, Convert, send};
use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};
use std::io::{self, Write};
use trunkline_sn3::Capture;
use trunkline_sn3::facts::MetadataFact;

struct Documents;

impl Convert for Documents {
    type Ready = Vec<u8>;

    fn prepare(&self, capture: &Capture) -> Result<(Vec<u8>, Begun), ApiError> {
        let changes = capture.facts().changes.iter();
        let parts = changes.filter_map(|(_, change)| change.metadata.as_ref());
        let body = json!({ "items": documents(parts) })
            .to_string()
            .into_bytes();
        let length = u64::try_from(body.len()).ok();
        Ok((body, Begun { length }))
    }

    fn write(&self, _: &Capture, body: &Vec<u8>, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(body)
    }
}

/// Documents of their parts, oldest first. One of which a part is missing says so.
fn documents<'a>(parts: impl Iterator<Item = &'a MetadataFact>) -> Vec<Value> {
    let mut items: Vec<(&MetadataFact, u16, String)> = Vec::new();
    let same = |one: &MetadataFact, other: &MetadataFact| {
        (&one.session, one.revision) == (&other.session, other.revision)
    };
    for part in parts {
        match items.last_mut() {
            Some((first, next, text)) if same(first, part) && part.part == *next => {
                *next += 1;
                text.push_str(&part.text);
            }
            _ if part.part == 0 => items.push((part, 1, part.text.clone())),
            _ => {}
        }
    }
    items
        .into_iter()
        .map(|(first, parts, text)| {
            json!({
                "session": (!first.session.is_empty()).then_some(&first.session),
                "revision": first.revision,
                "cseq": first.cseq,
                "at": first.at,
                "quarantined": (!first.quarantined.is_empty()).then_some(&first.quarantined),
                "whole": parts == first.parts,
                "document": text,
            })
        })
        .collect()
}

/// The documents of a recording; none where it is no recording client's.
pub(super) async fn metadata(
    State(shared): State<Shared>,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    send(&shared, &id, Documents, "application/json", "json").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_put_together_and_a_missing_part_is_told() {
        let part = |revision, part, parts, text: &str| MetadataFact {
            revision,
            part,
            parts,
            text: text.to_owned(),
            ..MetadataFact::default()
        };
        let all = [
            part(1, 0, 2, "<a"),
            part(1, 1, 2, "/>"),
            part(2, 0, 2, "<b"),
            part(3, 0, 1, "<c/>"),
        ];
        let found = documents(all.iter());
        let texts: Vec<&str> = found
            .iter()
            .filter_map(|one| one["document"].as_str())
            .collect();
        assert_eq!(texts, ["<a/>", "<b", "<c/>"]);
        assert_eq!(found[0]["whole"], true);
        assert_eq!(found[1]["whole"], false);
    }
}
