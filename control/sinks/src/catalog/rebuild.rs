//! The catalog from segments alone, and the end of recordings that nobody ended.

use super::recount;
use super::store::{self, Catalog, CatalogError, Storage, StoredRecording};
use crate::Timestamp;
use crate::object::{
    Call, CallState, Chain, EndedBy, Leg, Participant, Pause, Recording, RecordingState, Role,
    Verdict,
};
use crate::verdict;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use trunkline_sn3::capture::CaptureFacts;
use trunkline_sn3::facts::{CallClose, CallOpen, ParticipantFact};
use trunkline_sn3::{Capture, Keys, RecordingReader, SegmentReader};

/// Segments in which what the catalog misses is looked for: far more than is written in the time that a
/// power cut takes of it.
const NEWEST_SEGMENTS: usize = 64;
/// Page size of a segment.
const PAGE_BYTES: u64 = 4096;

/// What a rebuild found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RebuildReport {
    /// Segment files read.
    pub segments: usize,
    /// Recordings entered.
    pub recordings: usize,
    /// Calls entered.
    pub calls: usize,
    /// Places that could not be read, in words.
    pub damages: Vec<String>,
}

/// Enters every recording found in a directory of segments, and its call.
///
/// A recording without a close fact is entered as `finishing`: whether it still runs, only the
/// dataplane knows; [`settle`] then decides.
///
/// # Errors
/// The catalog could not be written. Damage in segments is reported, not an error.
pub fn rebuild(
    catalog: &mut Catalog,
    segments: &Path,
    keys: &Keys,
) -> Result<RebuildReport, CatalogError> {
    let mut report = RebuildReport::default();
    let mut calls = BTreeMap::<String, Call>::new();
    let places = places_of_recordings(segments, &mut report);
    for storage in places.values() {
        let (number, last) = (storage.number, storage.last());
        let capture = match Capture::open_in_directory_with(segments, number, last, keys) {
            Ok(capture) => capture,
            Err(error) => {
                report.damages.push(error.to_string());
                continue;
            }
        };
        report
            .damages
            .extend(capture.damages().iter().map(ToString::to_string));
        let Some(open) = &capture.facts().open else {
            report.damages.push(format!(
                "recording {}: its opening facts cannot be read",
                storage.number
            ));
            continue;
        };
        let recording = recording_of(open, &capture);
        if !open.recording_session {
            enter_call(&mut calls, open, capture.facts(), &recording);
        }
        catalog.put_recording(&recording, storage)?;
        report.recordings += 1;
    }
    report.calls = calls.len();
    catalog.write(|transaction, _| {
        calls
            .values()
            .try_for_each(|call| store::put_call(transaction, call))
    })?;
    Ok(report)
}

/// Ends what the catalog believes to be running and is not: `live_recordings` and `live_calls` are
/// those that the dataplane and the core know of. Gives the recordings ended, for events and metrics.
///
/// # Errors
/// The catalog could not be read or written.
pub fn settle(
    catalog: &mut Catalog,
    segments: &Path,
    live_recordings: &BTreeSet<u64>,
    live_calls: &BTreeSet<String>,
    keys: &Keys,
) -> Result<Vec<StoredRecording>, CatalogError> {
    let mut settled = Vec::new();
    let unfinished = catalog.unfinished_recordings()?;
    let lost: Vec<_> = unfinished
        .into_iter()
        .filter(|one| !live_recordings.contains(&one.storage.number))
        .collect();
    let mut places = BTreeMap::new();
    if !lost.is_empty() {
        places = places_of_recordings(segments, &mut RebuildReport::default());
    }
    for mut stored in lost {
        stored.storage = places
            .get(&stored.storage.number)
            .copied()
            .unwrap_or(Storage {
                number: stored.storage.number,
                ..Storage::default()
            });
        end_recording(&mut stored, segments, keys);
        catalog.put_recording(&stored.recording, &stored.storage)?;
        settled.push(stored);
    }
    for mut call in catalog.unfinished_calls()? {
        if !live_calls.contains(&call.id) {
            end_call(&mut call, &settled);
            catalog.put_call(&call)?;
        }
    }
    Ok(settled)
}

/// Enters recordings that the newest segments hold and the catalog does not: a power cut takes the
/// catalog's last seconds, and those of the segments less. `is_over` says of a recording's number that
/// nobody makes it any more, `live_calls` are those that the core knows of, and `mark` shows a recording as
/// it was decided. Gives them, with their ends.
///
/// # Errors
/// The catalog could not be read or written.
pub fn adopt(
    catalog: &mut Catalog,
    segments: &Path,
    is_over: &dyn Fn(u64) -> bool,
    live_calls: &BTreeSet<String>,
    mark: &dyn Fn(&mut Recording),
    keys: &Keys,
) -> Result<Vec<StoredRecording>, CatalogError> {
    let mut adopted = Vec::new();
    let mut listed = listed_segments(segments, &mut RebuildReport::default());
    let newest = listed.split_off(listed.len().saturating_sub(NEWEST_SEGMENTS));
    for storage in places_in(newest, &mut RebuildReport::default()).into_values() {
        if !is_over(storage.number) || catalog.has_recording(storage.number)? {
            continue;
        }
        let number = storage.number;
        let opened = Capture::open_in_directory_with(segments, number, storage.last(), keys);
        let Ok(capture) = opened else { continue };
        let facts = capture.facts();
        let (Some(open), Some(reader)) = (&facts.open, capture.recording()) else {
            continue;
        };
        // It may have begun in older segments.
        let bytes = reader.extents_in_order().map(|view| view.bytes.len());
        let storage = Storage {
            extents: u32::try_from(reader.extents()).unwrap_or(u32::MAX),
            bytes: bytes.sum::<usize>() as u64,
            ..storage
        };
        let recording = recording_of(open, &capture);
        let mut calls = BTreeMap::new();
        if !open.recording_session {
            enter_call(&mut calls, open, facts, &recording);
        }
        let mut stored = StoredRecording { recording, storage };
        end_recording(&mut stored, segments, keys);
        mark(&mut stored.recording);
        for (id, mut call) in calls {
            if live_calls.contains(&id) {
                continue;
            }
            match catalog.call(&id)? {
                Some(known) => {
                    call = known;
                    let own = stored.recording.id.clone();
                    if !call.recordings.contains(&own) {
                        call.recordings.push(own);
                    }
                }
                None => end_call(&mut call, std::slice::from_ref(&stored)),
            }
            catalog.put_call(&call)?;
        }
        catalog.put_recording(&stored.recording, &stored.storage)?;
        adopted.push(stored);
    }
    Ok(adopted)
}

/// The segments of a directory, by number.
fn listed_segments(segments: &Path, report: &mut RebuildReport) -> Vec<(u32, PathBuf)> {
    match trunkline_sn3::segment::list(segments) {
        Ok(listed) => listed,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => {
            report
                .damages
                .push(format!("{}: {error}", segments.display()));
            Vec::new()
        }
    }
}

/// The last extent and the size of every recording, from the segments' directories.
fn places_of_recordings(segments: &Path, report: &mut RebuildReport) -> BTreeMap<u64, Storage> {
    let listed = listed_segments(segments, report);
    places_in(listed, report)
}

/// The same of some segments.
fn places_in(listed: Vec<(u32, PathBuf)>, report: &mut RebuildReport) -> BTreeMap<u64, Storage> {
    let mut places = BTreeMap::<u64, (u32, Storage)>::new();
    for (number, path) in listed {
        let reader = match SegmentReader::open(&path) {
            Ok(reader) => reader,
            Err(error) => {
                report.damages.push(error.to_string());
                continue;
            }
        };
        report.segments += 1;
        let (entries, damages) = reader.index();
        report
            .damages
            .extend(damages.iter().map(ToString::to_string));
        for entry in entries.iter().filter(|entry| entry.recording != 0) {
            let (ordinal, storage) = places.entry(entry.recording).or_default();
            storage.number = entry.recording;
            storage.extents += 1;
            storage.bytes += u64::from(entry.units) * PAGE_BYTES;
            if storage.last_page == 0 || entry.ordinal >= *ordinal {
                *ordinal = entry.ordinal;
                storage.last_segment = number;
                storage.last_page = entry.page;
            }
        }
    }
    places
        .into_iter()
        .map(|(number, (_, storage))| (number, storage))
        .collect()
}

fn recording_of(open: &CallOpen, capture: &Capture) -> Recording {
    let facts = capture.facts();
    let started_at = Timestamp::parse(&open.started_at).unwrap_or_default();
    let mut recording = Recording {
        held: false,
        kept: open.keep_on_demand.then_some(false),
        id: open.recording_id.clone(),
        call_id: open.call_id.clone(),
        state: RecordingState::Finishing,
        started_at,
        ended_at: None,
        duration_ms: 0,
        paused_ms: 0,
        pauses: Vec::new(),
        participants: Vec::new(),
        verdict: None,
        receipt: None,
        tenant: (!open.tenant.is_empty()).then(|| open.tenant.clone()),
        sip_call_ids: open.sip_call_ids.clone(),
        session_id: (!open.session_id.is_empty()).then(|| open.session_id.clone()),
        attributes: open.attributes.clone(),
    };
    for (_, change) in &facts.changes {
        for id in &change.sip_call_ids {
            if !recording.sip_call_ids.contains(id) {
                recording.sip_call_ids.push(id.clone());
            }
        }
        recording.attributes.extend(change.attributes.clone());
        if change.kept {
            recording.kept = Some(true);
        }
    }
    recording.sip_call_ids.dedup();
    let changed = facts
        .changes
        .iter()
        .rev()
        .find_map(|(_, change)| change.participants.as_ref());
    let closed = facts
        .close
        .as_ref()
        .map(|(_, close)| &close.participants)
        .filter(|all| !all.is_empty());
    let participants = closed.or(changed).unwrap_or(&open.participants);
    recording.participants = participants
        .iter()
        .map(|fact| participant_of(fact, started_at))
        .collect();
    take_pauses(&mut recording, facts);
    if let Some((_, close)) = &facts.close {
        take_close(&mut recording, close);
    }
    take_chain(&mut recording, capture);
    recording
}

/// The close fact was written before the chain's head was known: the last extent has it.
fn take_chain(recording: &mut Recording, capture: &Capture) {
    let head = capture.recording().and_then(RecordingReader::chain_head);
    if let (Some(receipt), Some(head)) = (&mut recording.receipt, head) {
        receipt.chain = Chain::ending_with(&head);
    }
}

fn participant_of(fact: &ParticipantFact, started_at: Timestamp) -> Participant {
    let since_start = |text: &str| {
        Timestamp::parse(text)
            .ok()
            .map(|at| at.ms_since(started_at))
    };
    Participant {
        role: Role::from_name(&fact.role).unwrap_or(Role::Callee),
        uri: fact.uri.clone(),
        name: fact.name.clone(),
        from_ms: since_start(&fact.from).unwrap_or_default(),
        to_ms: since_start(&fact.to),
        channel: fact.channel,
    }
}

fn take_pauses(recording: &mut Recording, facts: &CaptureFacts) {
    const NS_PER_MS: u64 = 1_000_000;
    let asked_by = |by: u8| {
        ["", "api", "siprec", "policy"]
            .get(usize::from(by))
            .copied()
            .unwrap_or_default()
    };
    recording.pauses = facts
        .pauses
        .iter()
        .map(|span| Pause {
            from_ms: span.from_ns / NS_PER_MS,
            to_ms: span.to_ns.map(|to| to / NS_PER_MS),
            by: asked_by(span.by).to_owned(),
        })
        .collect();
    recording.paused_ms = recording
        .pauses
        .iter()
        .filter_map(|pause| Some(pause.to_ms?.saturating_sub(pause.from_ms)))
        .sum();
}

/// What the close fact says is final.
fn take_close(recording: &mut Recording, close: &CallClose) {
    recording.ended_at = Timestamp::parse(&close.ended_at).ok();
    recording.duration_ms = recording
        .ended_at
        .map_or(0, |ended_at| ended_at.ms_since(recording.started_at));
    if let Some(pause) = recording
        .pauses
        .last_mut()
        .filter(|pause| pause.to_ms.is_none())
    {
        pause.to_ms = Some(recording.duration_ms);
        recording.paused_ms += recording.duration_ms.saturating_sub(pause.from_ms);
    }
    recording.receipt = serde_json::from_value(close.receipt.clone()).ok();
    recording.verdict = Verdict::from_name(&close.verdict);
    if let Some(verdict) = recording.verdict {
        recording.state = verdict::final_state(verdict, true);
    }
}

/// Gives a recording that nobody closed its end: what the segments say, else `partial` by what was
/// captured, else `failed`.
fn end_recording(stored: &mut StoredRecording, segments: &Path, keys: &Keys) {
    let storage = stored.storage;
    let capture = match storage.last() {
        Some(last) => {
            Capture::open_in_directory_with(segments, storage.number, Some(last), keys).ok()
        }
        None => None,
    };
    let Some(capture) = capture else {
        let recording = &mut stored.recording;
        recording.ended_at.get_or_insert(recording.started_at);
        recording.verdict = Some(Verdict::Partial);
        recording.state = RecordingState::Failed;
        return;
    };
    if let Some(open) = &capture.facts().open {
        stored.recording = recording_of(open, &capture);
    }
    if stored.recording.state.is_final() {
        return;
    }
    let recording = &mut stored.recording;
    let last_heard_ms = capture
        .facts()
        .audio_span
        .map_or(0, |(_, last_ns)| last_ns / 1_000_000);
    recording.duration_ms = last_heard_ms;
    recording.ended_at = Some(Timestamp(
        recording
            .started_at
            .0
            .saturating_add_unsigned(last_heard_ms),
    ));
    for pause in recording
        .pauses
        .iter_mut()
        .filter(|pause| pause.to_ms.is_none())
    {
        pause.to_ms = Some(last_heard_ms.max(pause.from_ms));
    }
    recording.receipt = Some(verdict::receipt(&recount::count(&capture), None));
    take_told(recording, capture.facts());
    take_chain(recording, &capture);
    recording.verdict = Some(Verdict::Partial);
    recording.state = RecordingState::Partial;
}

/// How the parties were told of a recording, and what they wished: of one whose last fact, which has it,
/// was never written.
fn take_told(recording: &mut Recording, facts: &CaptureFacts) {
    let Some(receipt) = &mut recording.receipt else {
        return;
    };
    for (_, change) in &facts.changes {
        let indication = change.indication.clone().map(serde_json::from_value);
        if let Some(Ok(indication)) = indication {
            receipt.indicated(indication);
        }
        let preference = change.preference.clone().map(serde_json::from_value);
        if let Some(Ok(preference)) = preference {
            receipt.preferred(preference);
        }
    }
}

/// Enters a recording's call, or adds the recording to it.
fn enter_call(
    calls: &mut BTreeMap<String, Call>,
    open: &CallOpen,
    facts: &CaptureFacts,
    recording: &Recording,
) {
    let call = calls
        .entry(open.call_id.clone())
        .or_insert_with(|| new_call(open, recording));
    call.recordings.push(recording.id.clone());
    let answered = facts
        .changes
        .iter()
        .find_map(|(_, change)| change.answered_at.as_ref());
    for text in std::iter::once(&open.answered_at).chain(answered) {
        call.answered_at = call.answered_at.or(Timestamp::parse(text).ok());
    }
    if let Some((_, close)) = &facts.close
        && let Some(ended_by) = EndedBy::from_name(&close.ended_by)
    {
        finish_call(call, Timestamp::parse(&close.ended_at).ok(), ended_by);
    }
}

fn new_call(open: &CallOpen, recording: &Recording) -> Call {
    let uri_of = |role: Role| {
        let of_role = recording
            .participants
            .iter()
            .find(|participant| participant.role == role);
        of_role
            .map(|participant| participant.uri.clone())
            .unwrap_or_default()
    };
    let leg = |(index, sip_call_id): (usize, &String)| Leg {
        id: crate::object::new_id(),
        role: if index == 0 {
            Role::Caller
        } else {
            Role::Callee
        },
        sip_call_id: sip_call_id.clone(),
        trunk: None,
        peer: String::new(),
        codec: None,
        state: CallState::Active,
    };
    Call {
        id: open.call_id.clone(),
        tenant: recording.tenant.clone(),
        state: CallState::Active,
        caller: open.caller.clone(),
        callee: open.callee.clone(),
        caller_uri: uri_of(Role::Caller),
        callee_uri: uri_of(Role::Callee),
        sip_call_id: open.sip_call_ids.first().cloned().unwrap_or_default(),
        session_id: recording.session_id.clone(),
        started_at: Timestamp::parse(&open.call_started_at).unwrap_or(recording.started_at),
        answered_at: None,
        ended_at: None,
        ended_by: None,
        sip_code: None,
        q850: None,
        legs: recording.sip_call_ids.iter().enumerate().map(leg).collect(),
        recordings: Vec::new(),
        // It was recorded: of calls that were not, segments know nothing.
        recording_expected: true,
        attributes: open.attributes.clone(),
        indications: Vec::new(),
    }
}

fn finish_call(call: &mut Call, ended_at: Option<Timestamp>, ended_by: EndedBy) {
    call.ended_at = ended_at.or(call.ended_at);
    call.ended_by = Some(ended_by);
    call.state = if call.answered_at.is_some() {
        CallState::Ended
    } else {
        CallState::Failed
    };
    for leg in &mut call.legs {
        leg.state = call.state;
    }
}

/// A call that ended while we were down: its end is that of what was recorded of it, if anything.
fn end_call(call: &mut Call, settled: &[StoredRecording]) {
    let own = settled
        .iter()
        .filter(|stored| stored.recording.call_id == call.id);
    let last = own.filter_map(|stored| stored.recording.ended_at).max();
    let known = last
        .or(call.ended_at)
        .or(call.answered_at)
        .unwrap_or(call.started_at);
    finish_call(call, Some(known), EndedBy::Unknown);
}
