//! What is owed about every leg and every attempt: its call detail records, and what hooks are told.
//!
//! The B2BUA says what happens; [`Told`] comes out, to be written and told by the caller. Each leg's
//! last record is `final`, exactly one: what this process cannot write any more, the next one does
//! ([`Ledger::resume`], [`Ledger::orphans`]).

mod fill;
mod resumed;

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use trunkline_hooks::CallMeta;
use trunkline_sinks::catalog::call_meta;
use trunkline_sinks::cdr::{Attempt, Cdr, Direction, RecordKind, TransferStep};
use trunkline_sinks::object::{self, EndedBy};
use trunkline_sip::message::{Request, Response};
use trunkline_sip::transaction::Path;

use crate::b2bua::headers;
use crate::call::recording::Recording;
use crate::call::{Call, Leg};
use crate::callbacks::Sound;
use crate::clock::Moment;

pub use resumed::end_orphan;

/// Attempts and transfers of one call that its records tell of.
const CHAIN_MAX: usize = 64;

/// Something to be written or told.
#[derive(Debug, Clone)]
pub enum Told {
    /// A call detail record, to be numbered and written.
    Record(Box<Cdr>),
    /// `on_ringing`.
    Ringing(CallMeta),
    /// `on_established`.
    Established(CallMeta),
    /// `on_transfer_started`: the inbound leg, the target.
    TransferStarted(CallMeta, String),
    /// `on_bridge_started`.
    BridgeStarted {
        /// Id of the call in the API.
        call: String,
        /// Call-ID of the inbound leg.
        inbound: String,
        /// Call-ID of the outbound leg.
        outbound: String,
    },
    /// `begin_recording`.
    RecordingBegun {
        /// The inbound leg.
        meta: CallMeta,
        /// Number of the recording.
        number: u64,
        /// What the PCM will be.
        sound: Sound,
        /// CLOCK_MONOTONIC ns at which its PCM begins: the answer, or the recording's later start.
        from_mono_ns: u64,
    },
    /// Capture of a recording ended.
    RecordingEnded {
        /// Number of the recording.
        number: u64,
        /// When, CLOCK_MONOTONIC ns.
        at_mono_ns: u64,
    },
}

/// The legs of one call that are not over, and what happened before.
#[derive(Debug, Default)]
struct Legs {
    open: Vec<Cdr>,
    outbound: u32,
    failover: Vec<Attempt>,
    transfers: Vec<TransferStep>,
    /// Reason header of the end.
    reason: Option<String>,
    /// When the next interim record is due.
    interim: Option<Instant>,
}

impl Legs {
    fn leg(&mut self, sip_call_id: &str) -> Option<&mut Cdr> {
        self.open
            .iter_mut()
            .find(|leg| leg.sip_call_id == sip_call_id)
    }
}

/// The ledger of all calls.
#[derive(Debug, Default)]
pub struct Ledger {
    calls: HashMap<u64, Legs>,
    told: Vec<Told>,
    /// Zero = no interim records.
    interval: Duration,
    due: BTreeSet<(Instant, u64)>,
    /// Legs that an earlier process left open.
    left: Vec<Cdr>,
}

impl Ledger {
    /// Answered legs get a record each `interim_minutes`; 0 = none.
    pub fn new(interim_minutes: u32) -> Self {
        Self {
            interval: Duration::from_secs(u64::from(interim_minutes) * 60),
            ..Self::default()
        }
    }

    /// Legs that an earlier process left open.
    pub fn set_left(&mut self, left: Vec<Cdr>) {
        self.left = left;
    }

    /// What is to be written and told, in order.
    pub fn take(&mut self) -> Vec<Told> {
        std::mem::take(&mut self.told)
    }

    fn record(&mut self, kind: RecordKind, cdr: &Cdr) {
        let mut record = cdr.clone();
        record.record = kind;
        self.told.push(Told::Record(Box::new(record)));
    }

    /// An INVITE was refused before it became a call.
    pub fn refused(&mut self, request: &Request, path: Path, status: u16, now: &Moment) {
        let mut cdr = fill::inbound(request, path, now.utc);
        cdr.id = object::new_id();
        cdr.ended_at = Some(now.utc);
        (cdr.ended_by, cdr.sip_code) = (Some(EndedBy::Us), Some(status));
        cdr.note_durations(now.utc);
        self.record(RecordKind::Final, &cdr);
    }

    /// A call came in.
    pub fn invited_in(&mut self, call: &Call, request: &Request, path: Path, now: &Moment) {
        let mut cdr = fill::inbound(request, path, now.utc);
        if let Some(leg) = call.object.legs.first() {
            cdr.id.clone_from(&leg.id);
        }
        fill::from_call(&mut cdr, call);
        self.record(RecordKind::Start, &cdr);
        let open = &mut self.calls.entry(call.key).or_default().open;
        // Nearly always its own leg and one other.
        open.reserve_exact(2);
        open.push(cdr);
    }

    /// An INVITE of ours leaves.
    pub fn invited_out(&mut self, call: &Call, request: &Request, leg: &Leg, now: &Moment) {
        let legs = self.calls.entry(call.key).or_default();
        legs.outbound += 1;
        let mut cdr = fill::outbound(request, leg, now.utc);
        cdr.attempt = legs.outbound;
        cdr.id = object::new_id();
        if let Some(inbound) = legs.open.first() {
            cdr.request_uri_in.clone_from(&inbound.request_uri_in);
        }
        cdr.failover.clone_from(&legs.failover);
        cdr.transfers.clone_from(&legs.transfers);
        fill::from_call(&mut cdr, call);
        self.record(RecordKind::Start, &cdr);
        if let Some(legs) = self.calls.get_mut(&call.key) {
            legs.open.push(cdr);
        }
    }

    /// The id of an open leg.
    pub fn leg_id(&self, call: &Call, sip_call_id: &str) -> Option<String> {
        let legs = self.calls.get(&call.key)?;
        let leg = legs
            .open
            .iter()
            .find(|leg| leg.sip_call_id == sip_call_id)?;
        Some(leg.id.clone())
    }

    /// A response to an INVITE of ours.
    pub fn heard(&mut self, call: &Call, response: &Response, now: &Moment) {
        let sip_call_id = response.headers.call_id().unwrap_or_default();
        match response.status {
            0..=100 => {}
            180..190 => self.progress(call, &sip_call_id, now),
            101..200 => {}
            status @ 200..300 => self.answered(call, &sip_call_id, status, now),
            status => {
                let reason = fill::joined(&response.headers, "Reason");
                let q850 = headers::q850(&response.headers);
                self.attempt_failed(call, &sip_call_id, status, (q850, reason), now);
            }
        }
    }

    /// An INVITE of ours got no final response.
    pub fn unanswered(&mut self, call: &Call, sip_call_id: &str, status: u16, now: &Moment) {
        self.attempt_failed(call, sip_call_id, status, (None, None), now);
    }

    /// A response of ours to the caller's INVITE.
    pub fn told_caller(&mut self, call: &Call, status: u16, now: &Moment) {
        let sip_call_id = call.object.sip_call_id.as_str();
        match status {
            180..190 => self.progress(call, sip_call_id, now),
            200..300 => self.answered(call, sip_call_id, status, now),
            _ => {}
        }
    }

    fn progress(&mut self, call: &Call, sip_call_id: &str, now: &Moment) {
        let Some(leg) = self
            .calls
            .get_mut(&call.key)
            .and_then(|legs| legs.leg(sip_call_id))
        else {
            return;
        };
        if leg.progress_at.is_some() || leg.answered_at.is_some() {
            return;
        }
        leg.progress_at = Some(now.utc);
        self.told.push(Told::Ringing(call_meta(leg)));
    }

    fn answered(&mut self, call: &Call, sip_call_id: &str, status: u16, now: &Moment) {
        let Some(legs) = self.calls.get_mut(&call.key) else {
            return;
        };
        let failover = legs.failover.clone();
        let Some(leg) = legs.leg(sip_call_id) else {
            return;
        };
        if leg.answered_at.is_some() {
            return;
        }
        (leg.answered_at, leg.sip_code) = (Some(now.utc), Some(status));
        if leg.direction == Direction::Inbound {
            leg.failover = failover;
        }
        fill::from_call(leg, call);
        leg.note_durations(now.utc);
        let record = leg.clone();
        if legs.interim.is_none() && !self.interval.is_zero() {
            let due = now.instant + self.interval;
            legs.interim = Some(due);
            self.due.insert((due, call.key));
        }
        self.record(RecordKind::Answer, &record);
    }

    /// The ACK of a leg's 2xx was sent, or came.
    pub fn acknowledged(&mut self, call: &Call, sip_call_id: &str, now: &Moment) {
        let Some(leg) = self
            .calls
            .get_mut(&call.key)
            .and_then(|legs| legs.leg(sip_call_id))
        else {
            return;
        };
        if leg.answered_at.is_none() || leg.established_at.is_some() {
            return;
        }
        leg.established_at = Some(now.utc);
        fill::from_call(leg, call);
        self.told.push(Told::Established(call_meta(leg)));
    }

    /// Both directions are relayed.
    pub fn bridged(&mut self, call: &Call) {
        let id = |index: usize| Some(call.object.legs.get(index)?.sip_call_id.clone());
        if let [Some(inbound), Some(outbound)] = call.shown.map(id) {
            self.told.push(Told::BridgeStarted {
                call: call.object.id.clone(),
                inbound,
                outbound,
            });
        }
    }

    /// The place of a leg is to be taken by somebody at `target`.
    pub fn transfer_started(&mut self, call: &Call, target: &str, now: &Moment) {
        let Some(legs) = self.calls.get_mut(&call.key) else {
            return;
        };
        if legs.transfers.len() < CHAIN_MAX {
            legs.transfers.push(TransferStep {
                at: now.utc,
                target: target.to_owned(),
                sip_call_id: String::new(),
                sip_code: None,
            });
        }
        if let Some(inbound) = legs.open.first() {
            let meta = call_meta(inbound);
            self.told
                .push(Told::TransferStarted(meta, target.to_owned()));
        }
    }

    /// The latest transfer of the call came to this.
    pub fn transfer_ended(&mut self, call: &Call, sip_call_id: &str, status: u16) {
        let legs = self.calls.get_mut(&call.key);
        let open = legs
            .and_then(|legs| legs.transfers.last_mut())
            .filter(|step| step.sip_code.is_none());
        if let Some(step) = open {
            sip_call_id.clone_into(&mut step.sip_call_id);
            step.sip_code = Some(status);
        }
    }

    /// An INVITE with Replaces came in: it is for the leg shown at `index`.
    pub fn joined(
        &mut self,
        call: &Call,
        index: usize,
        request: &Request,
        path: Path,
        now: &Moment,
    ) {
        let mut cdr = fill::inbound(request, path, now.utc);
        if let Some(leg) = call.object.legs.get(index) {
            cdr.id.clone_from(&leg.id);
        }
        fill::from_call(&mut cdr, call);
        self.record(RecordKind::Start, &cdr);
        self.calls.entry(call.key).or_default().open.push(cdr);
    }

    /// What we answered to an INVITE with Replaces.
    pub fn told_joining(&mut self, call: &Call, sip_call_id: &str, status: u16, now: &Moment) {
        if status < 300 {
            self.answered(call, sip_call_id, status, now);
        } else {
            self.attempt_failed(call, sip_call_id, status, (None, None), now);
        }
    }

    /// An answered leg of one call is another's from now on; gives its id.
    pub fn take_over(&mut self, from: u64, to: u64, sip_call_id: &str) -> Option<String> {
        let open = &mut self.calls.get_mut(&from)?.open;
        let index = open.iter().position(|leg| leg.sip_call_id == sip_call_id)?;
        let mut leg = open.remove(index);
        let id = leg.id.clone();
        let to = self.calls.entry(to).or_default();
        to.outbound += 1;
        leg.attempt = to.outbound;
        leg.scenario = "transfer_agent".to_owned();
        to.open.push(leg);
        Some(id)
    }

    /// A recording of an answered call captures.
    pub fn recording_begun(&mut self, call: &Call, recording: &Recording) {
        let inbound = self.calls.get(&call.key).and_then(|legs| legs.open.first());
        let Some(inbound) = inbound else { return };
        let mut inbound = inbound.clone();
        fill::from_call(&mut inbound, call);
        self.told.push(Told::RecordingBegun {
            sound: fill::sound(call),
            meta: call_meta(&inbound),
            number: recording.number,
            from_mono_ns: call.answered_mono_ns.max(recording.origin_mono_ns),
        });
    }

    /// Capture of a recording ended.
    pub fn recording_ended(&mut self, number: u64, now: &Moment) {
        self.told.push(Told::RecordingEnded {
            number,
            at_mono_ns: now.mono_ns,
        });
    }

    fn attempt_failed(
        &mut self,
        call: &Call,
        sip_call_id: &str,
        status: u16,
        (q850, reason): (Option<u8>, Option<String>),
        now: &Moment,
    ) {
        let Some(legs) = self.calls.get_mut(&call.key) else {
            return;
        };
        let found = legs
            .open
            .iter()
            .position(|leg| leg.sip_call_id == sip_call_id);
        // A leg that was answered ends with its dialog.
        let Some(index) = found.filter(|index| legs.open[*index].answered_at.is_none()) else {
            return;
        };
        let mut leg = legs.open.remove(index);
        // Who wanted somebody's place and did not get it was no attempt of ours.
        let attempted = leg.direction == Direction::Outbound;
        if attempted && legs.failover.len() < CHAIN_MAX {
            legs.failover.push(Attempt {
                request_uri: leg.request_uri_out.clone().unwrap_or_default(),
                sip_call_id: leg.sip_call_id.clone(),
                sip_code: Some(status),
                q850,
            });
        }
        leg.sip_code = Some(status);
        leg.q850 = q850.or(leg.q850);
        if reason.is_some() {
            leg.reason = reason;
        }
        leg.ended_by.get_or_insert(EndedBy::Callee);
        leg.ended_at = Some(now.utc);
        fill::from_call(&mut leg, call);
        leg.note_durations(now.utc);
        self.record(RecordKind::Final, &leg);
    }

    /// We gave up on an attempt: `reason` goes out with its CANCEL.
    pub fn cancelled(&mut self, call: &Call, sip_call_id: &str, reason: Option<&str>) {
        let by = match call.object.ended_by {
            Some(EndedBy::Caller) => EndedBy::Caller,
            _ => EndedBy::Us,
        };
        let legs = self.calls.get_mut(&call.key);
        if let Some(leg) = legs.and_then(|legs| legs.leg(sip_call_id)) {
            leg.ended_by = Some(by);
            leg.reason = reason.map(str::to_owned);
            leg.q850 = reason.and_then(headers::q850_of);
        }
    }

    /// A leg's dialog is over while its call goes on, or was never wanted.
    pub fn leg_over(
        &mut self,
        call: &Call,
        sip_call_id: &str,
        by: EndedBy,
        reason: Option<&str>,
        now: &Moment,
    ) {
        let Some(legs) = self.calls.get_mut(&call.key) else {
            return;
        };
        let found = legs
            .open
            .iter()
            .position(|leg| leg.sip_call_id == sip_call_id);
        let Some(index) = found else { return };
        let mut leg = legs.open.remove(index);
        leg.ended_by.get_or_insert(by);
        leg.ended_at = Some(now.utc);
        if reason.is_some() {
            leg.reason = reason.map(str::to_owned);
        }
        leg.transfers.clone_from(&legs.transfers);
        fill::from_call(&mut leg, call);
        leg.note_durations(now.utc);
        self.record(RecordKind::Final, &leg);
    }

    /// The call's end began: this Reason came, or goes out.
    pub fn ending(&mut self, call: &Call, reason: Option<&str>) {
        if let Some(legs) = self.calls.get_mut(&call.key) {
            legs.reason = legs.reason.take().or_else(|| reason.map(str::to_owned));
        }
    }

    /// The call is over, its recordings too.
    pub fn over(&mut self, call: &Call, now: &Moment) {
        let Some(legs) = self.calls.remove(&call.key) else {
            return;
        };
        if let Some(due) = legs.interim {
            self.due.remove(&(due, call.key));
        }
        for mut leg in legs.open {
            leg.ended_at = leg.ended_at.or(call.object.ended_at).or(Some(now.utc));
            leg.ended_by = leg.ended_by.or(call.object.ended_by);
            leg.q850 = leg.q850.or(call.object.q850);
            leg.reason = leg.reason.or_else(|| legs.reason.clone());
            if leg.direction == Direction::Inbound {
                leg.failover.clone_from(&legs.failover);
                leg.sip_code = call.object.sip_code;
            }
            leg.transfers.clone_from(&legs.transfers);
            fill::from_call(&mut leg, call);
            leg.note_durations(now.utc);
            self.record(RecordKind::Final, &leg);
        }
    }

    /// When the next interim record is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// A call whose interim records are due now.
    pub fn take_due(&mut self, now: &Moment) -> Option<u64> {
        let (due, key) = self.due.first().copied()?;
        if due > now.instant {
            return None;
        }
        self.due.pop_first();
        if let Some(legs) = self.calls.get_mut(&key) {
            let next = now.instant + self.interval;
            legs.interim = Some(next);
            self.due.insert((next, key));
        }
        Some(key)
    }

    /// The records of a call that lasts.
    pub fn interim(&mut self, call: &Call, now: &Moment) {
        let Some(legs) = self.calls.get_mut(&call.key) else {
            return;
        };
        let answered = legs.open.iter_mut().filter(|leg| leg.answered_at.is_some());
        let mut records = Vec::new();
        for leg in answered {
            fill::from_call(leg, call);
            leg.note_durations(now.utc);
            records.push(leg.clone());
        }
        for record in records {
            self.record(RecordKind::Interim, &record);
        }
    }
}
