//! When recorders are due, and what becomes of a call whose required recorders fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use trunkline_config::{OnRecordingFailure, Recorder, RecorderStart};
use trunkline_sinks::object;
use trunkline_sn3::facts::CallChange;

use super::replay::Gone;
use super::state::{Phase, RecordingSession};
use super::view::{CallView, Stage};
use super::{Client, Context};

/// What a call is to do for its recorders' sake.
#[derive(Debug)]
pub enum Order {
    /// Every required recorder has accepted: call the callee.
    Proceed,
    /// A required recorder has not: refuse the call.
    Refuse(String),
    /// End the call.
    HangUp(String),
    /// Show a recording session as a leg.
    Leg(Box<object::Leg>),
    /// Whether recorders have the call has changed.
    Recorded,
    /// Append a fact to the recording here.
    Fact(Box<CallChange>),
    /// Note what a recorder misses in the receipt of the recording here.
    Gap(Box<object::Gap>),
}

/// What is known of a call's recorders.
#[derive(Debug, Default)]
pub(super) struct CallRecorders {
    pub view: Option<Arc<CallView>>,
    /// Its sessions that are not over.
    pub sessions: Vec<u64>,
    /// Names of the recorders that have or had one.
    pub begun: BTreeSet<String>,
    /// Recorders that declined, left or were stopped: nobody asks them again by itself. True: it was required
    /// and never had the call.
    pub dismissed: BTreeMap<String, bool>,
    /// The callee is not called before the required recorders have accepted.
    gated: bool,
    /// They have, or it does not matter any more.
    passed: bool,
    /// What its recorders missed and are to get after the call.
    pub gone: Vec<Gone>,
    /// The call ends then.
    hang_up_at: Option<Instant>,
}

impl CallRecorders {
    /// Whether a required recorder declined or was given up.
    fn has_failed(&self, name: &str) -> bool {
        self.dismissed.get(name).copied().unwrap_or(false)
    }

    /// When the grace is over.
    pub fn deadline(&self) -> Option<Instant> {
        self.hang_up_at
    }

    /// A session of the call is over.
    pub fn over(&mut self, session: &RecordingSession) {
        let failed = session.recorder.required && !session.announced;
        let name = session.recorder.name.clone();
        *self.dismissed.entry(name).or_default() |= failed;
    }
}

/// Whether a recorder's session begins now.
pub(super) fn is_due(recorder: &Recorder, view: &CallView) -> bool {
    let rejects = view.recorders.on_failure == OnRecordingFailure::Reject && !view.emergency;
    match recorder.start {
        _ if view.declined => false,
        _ if recorder.required && rejects => true,
        RecorderStart::Invite => true,
        RecorderStart::Early => view.stage >= Stage::Early && !view.streams.is_empty(),
        RecorderStart::Answer => view.stage >= Stage::Answered,
    }
}

impl Client {
    /// The recorders of a call that nobody asks again by itself, for the call's record.
    pub fn dismissed(&self, call: u64) -> BTreeMap<String, bool> {
        let known = self.calls.get(&call);
        known.map(|one| one.dismissed.clone()).unwrap_or_default()
    }

    /// Takes over what an earlier control knew of them.
    pub fn dismiss(&mut self, call: u64, recorders: BTreeMap<String, bool>) {
        if recorders.is_empty() {
            return;
        }
        let known = self.calls.entry(call).or_default();
        known.begun.extend(recorders.keys().cloned());
        known.dismissed = recorders;
    }

    /// Whether the call has to wait for its recorders before it calls anybody. When it is over, an
    /// [`Order`] says so.
    pub fn holds(&mut self, call: u64, cx: &mut Context<'_>) -> bool {
        let Some(known) = self.calls.get_mut(&call) else {
            return false;
        };
        let Some(view) = &known.view else {
            return false;
        };
        let rejects = view.recorders.on_failure == OnRecordingFailure::Reject && !view.emergency;
        let required = view.recorders.list.iter().any(|one| one.required);
        if !rejects || !required || known.passed || !view.has_ports {
            return false;
        }
        if !known.gated {
            known.gated = true;
            self.judge(call, cx);
        }
        true
    }

    /// The gate's outcome is known; false while it is open.
    fn judge_gate(&mut self, call: u64) -> bool {
        let Some(known) = self.calls.get(&call).filter(|known| known.gated) else {
            return false;
        };
        let Some(view) = known.view.clone() else {
            return false;
        };
        let mut accepted = true;
        let mut refused = None;
        for recorder in view.recorders.list.iter().filter(|one| one.required) {
            let mut sessions = known
                .sessions
                .iter()
                .filter_map(|key| self.sessions.get(key));
            match sessions.find(|one| one.recorder.name == recorder.name) {
                Some(session) if session.phase == Phase::Standing => {}
                Some(session) if session.phase == Phase::Lost => {
                    let why = session.why.clone().unwrap_or_default();
                    refused = Some(format!("recorder {}: {why}", recorder.name));
                }
                Some(_) => accepted = false,
                None if known.has_failed(&recorder.name) => {
                    refused = Some(format!("recorder {} declined", recorder.name));
                }
                None => accepted = false,
            }
        }
        let order = match (refused, accepted) {
            (Some(why), _) => Order::Refuse(why),
            (None, true) => Order::Proceed,
            (None, false) => return false,
        };
        if let Some(known) = self.calls.get_mut(&call) {
            (known.gated, known.passed) = (false, true);
        }
        self.orders.push((call, order));
        true
    }

    /// Looks at what a change of one of its sessions means for the call.
    pub(super) fn judge(&mut self, call: u64, cx: &mut Context<'_>) {
        self.judge_gate(call);
        let Some(known) = self.calls.get(&call) else {
            return;
        };
        let Some(view) = known.view.clone() else {
            return;
        };
        let hangs_up = view.recorders.on_failure == OnRecordingFailure::Hangup
            && !view.emergency
            && view.stage == Stage::Answered;
        let lost = if hangs_up {
            self.all_lost_since(call, &view, cx)
        } else {
            None
        };
        let grace = Duration::from_secs(u64::from(view.recorders.grace_s));
        if let Some(known) = self.calls.get_mut(&call) {
            known.hang_up_at = lost.map(|since| known.hang_up_at.unwrap_or(since + grace));
        }
    }

    /// Since when no required recorder has the call; `None` = one has it, or may still get it.
    fn all_lost_since(&self, call: u64, view: &CallView, cx: &Context<'_>) -> Option<Instant> {
        let known = self.calls.get(&call)?;
        let mut last = None;
        if view.recorders.local {
            if view.captured {
                return None;
            }
            last = Some(cx.now.instant);
        }
        for recorder in view.recorders.list.iter().filter(|one| one.required) {
            let mut sessions = known
                .sessions
                .iter()
                .filter_map(|key| self.sessions.get(key));
            let since = match sessions.find(|one| one.recorder.name == recorder.name) {
                Some(session) => session.lost_since?,
                None if known.has_failed(&recorder.name) => cx.now.instant,
                // Stopped by the operator, or not begun.
                None => return None,
            };
            last = last.max(Some(since));
        }
        last
    }

    pub(super) fn grace_timeouts(&mut self, cx: &mut Context<'_>) {
        for (call, known) in &mut self.calls {
            if known.hang_up_at.is_some_and(|at| at <= cx.now.instant) {
                known.hang_up_at = None;
                let why = "no required recorder has the call".to_owned();
                self.orders.push((*call, Order::HangUp(why)));
            }
        }
    }
}
