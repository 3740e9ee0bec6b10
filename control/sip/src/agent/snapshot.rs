//! Confirmed dialogs outlive the process: a snapshot holds all that a restored agent needs.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::core::Agent;
use super::leg::Leg;
use super::types::{AgentError, Body, DialogHandle};
use super::view::Times;
use crate::dialog::{Dialog, DialogState, Party, SessionTerms};
use crate::transaction::Target;

/// A confirmed dialog as data. Transactions under way are not part of it: what was in flight
/// ends by its peer's timers, and a 2xx that is repeated later is acknowledged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    #[serde(rename = "d")]
    dialog: Dialog,
    #[serde(rename = "t")]
    target: Target,
    #[serde(rename = "f")]
    fixed_target: bool,
    #[serde(rename = "a")]
    calling: Option<Party>,
    #[serde(rename = "b")]
    called: Party,
    #[serde(rename = "l")]
    local_body: Option<Body>,
    #[serde(rename = "r")]
    remote_body: Option<Body>,
    #[serde(rename = "s")]
    session: Option<SessionTerms>,
    #[serde(rename = "u")]
    peer_updates: bool,
    #[serde(rename = "n")]
    refers: u32,
    /// How long before the snapshot the call began and was answered, in milliseconds.
    #[serde(rename = "m")]
    ages_ms: (u64, u64),
}

impl<C: Clone + Default> Agent<C> {
    /// A confirmed dialog as data; the user keeps the context, and any credentials, beside it.
    ///
    /// # Errors
    /// The dialog is over, or not answered yet.
    pub fn snapshot(&self, now: Instant, dialog: DialogHandle) -> Result<Snapshot, AgentError> {
        let leg = self.leg(dialog)?;
        if leg.dialog.state() != DialogState::Confirmed {
            return Err(AgentError::State("only an answered call can be restored"));
        }
        let age = |at: Instant| now.saturating_duration_since(at).as_millis() as u64;
        let (calling, called) = leg.parties();
        let times = leg.times;
        Ok(Snapshot {
            dialog: leg.dialog.clone(),
            target: leg.target.clone(),
            fixed_target: leg.fixed_target,
            calling: calling.clone(),
            called: called.clone(),
            local_body: leg.local_body.clone(),
            remote_body: leg.remote_body.clone(),
            session: leg.timer.as_ref().map(|timer| timer.terms()),
            peer_updates: leg.peer_updates,
            refers: leg.refers,
            ages_ms: (age(times.started), times.connected.map_or(0, age)),
        })
    }

    /// Brings a dialog back. Its session timer begins anew.
    ///
    /// # Errors
    /// A dialog of this identity is there.
    pub fn restore(
        &mut self,
        now: Instant,
        snapshot: Snapshot,
        context: C,
    ) -> Result<DialogHandle, AgentError> {
        if self.by_id.contains_key(&snapshot.dialog.id()) {
            return Err(AgentError::State("this dialog is there"));
        }
        let ago = |ms: u64| now.checked_sub(Duration::from_millis(ms)).unwrap_or(now);
        let times = Times {
            started: ago(snapshot.ages_ms.0),
            early: None,
            connected: Some(ago(snapshot.ages_ms.1)),
            ended: None,
        };
        let parties = (snapshot.calling, snapshot.called);
        let mut leg = Leg::restored(snapshot.dialog, context, parties, times, snapshot.target);
        leg.fixed_target = snapshot.fixed_target;
        leg.local_body = snapshot.local_body;
        leg.remote_body = snapshot.remote_body;
        leg.policy = self.config.session;
        leg.agreed(now, snapshot.session);
        leg.peer_updates = snapshot.peer_updates;
        leg.refers = snapshot.refers;
        let handle = self.add_leg(leg);
        self.arm(handle);
        Ok(handle)
    }
}
