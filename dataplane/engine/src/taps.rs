//! Commands to a session's tap.

use crate::engine::Engine;
use crate::flow::{Flow, NO_FLOW, NO_TAP, Session};
use crate::spec::{DropReason, EngineError, STREAMS_MAX, StreamReceipt};
use crate::stream::Stream;
use crate::tap::{Live, Tap};

impl Engine {
    /// Starts capturing a session at this packet. `tap` comes back in [`crate::Actions::capture`]
    /// and may be any number but `u32::MAX`.
    ///
    /// # Errors
    /// No such session, or it has a tap.
    pub fn start_tap(&mut self, session: u64, tap: u32) -> Result<(), EngineError> {
        if tap == NO_TAP {
            return Err(EngineError::Invalid);
        }
        let found = self.session(session)?;
        if found.tap.is_some() {
            return Err(EngineError::WrongState);
        }
        found.tap = Some(Box::new(Tap::new()));
        found.tap_id = tap;
        self.tell_flows(session)
    }

    /// Captures no more until resumed.
    ///
    /// # Errors
    /// No such tap, or it is paused.
    pub fn pause_tap(&mut self, session: u64) -> Result<(), EngineError> {
        let owner = *self.index.get(&session).ok_or(EngineError::NotFound)?;
        let Self {
            sessions, flows, ..
        } = self;
        let found = sessions[owner as usize]
            .as_mut()
            .ok_or(EngineError::NotFound)?;
        let tap = found.tap.as_deref_mut().ok_or(EngineError::NotFound)?;
        if !tap.is_running() {
            return Err(EngineError::WrongState);
        }
        for &flow in &found.flows {
            for leg in &mut flows[flow as usize].legs {
                leg.streams.end_runs(tap);
            }
        }
        tap.pause();
        self.tell_flows(session)
    }

    /// Captures again.
    ///
    /// # Errors
    /// No such tap, or it is not paused.
    pub fn resume_tap(&mut self, session: u64) -> Result<(), EngineError> {
        let tap = self
            .session(session)?
            .tap
            .as_mut()
            .ok_or(EngineError::NotFound)?;
        if tap.is_running() {
            return Err(EngineError::WrongState);
        }
        tap.resume();
        self.tell_flows(session)
    }

    /// Appends the receipts so far to `out`. False when the session has no tap.
    pub fn tap_receipts(&self, session: u64, out: &mut Vec<StreamReceipt>) -> bool {
        let Some(session) = self.peek(session) else {
            return false;
        };
        let Some(tap) = &session.tap else {
            return false;
        };
        tap.receipts(&runs_in_progress(&self.flows, session), out);
        true
    }

    /// Ends the tap and appends its final receipts to `out`.
    ///
    /// # Errors
    /// No such tap.
    pub fn stop_tap(
        &mut self,
        session: u64,
        out: &mut Vec<StreamReceipt>,
    ) -> Result<(), EngineError> {
        if !self.tap_receipts(session, out) {
            return Err(EngineError::NotFound);
        }
        self.session(session)?.tap = None;
        self.tell_flows(session)?;
        let owner = self.index[&session];
        let Self {
            sessions, flows, ..
        } = self;
        for &flow in sessions[owner as usize]
            .iter()
            .flat_map(|session| &session.flows)
        {
            for leg in &mut flows[flow as usize].legs {
                leg.streams.untap();
            }
        }
        Ok(())
    }

    /// Tells a session's flows whether to capture.
    fn tell_flows(&mut self, session: u64) -> Result<(), EngineError> {
        let owner = *self.index.get(&session).ok_or(EngineError::NotFound)?;
        let Self {
            sessions, flows, ..
        } = self;
        let session = sessions[owner as usize]
            .as_ref()
            .ok_or(EngineError::NotFound)?;
        for &flow in &session.flows {
            flows[flow as usize].tap = session.running_tap();
        }
        Ok(())
    }

    /// The kernel (or device) dropped `rise` more datagrams of this slot since the last call: what
    /// is missing in the streams of its running tap counts as dropped for this reason up to the
    /// rise, the rest as lost. A rise of before the tap's start is to be told before the start.
    pub fn attribute_drops(&mut self, slot: u32, reason: DropReason, rise: u64) {
        let port = self
            .ports
            .get(slot as usize)
            .filter(|port| port.flow != NO_FLOW);
        let Some(port) = port else { return };
        let flow = &self.flows[port.flow as usize];
        let tap = self.sessions[flow.owner as usize]
            .as_mut()
            .and_then(|s| s.tap.as_mut());
        if let Some(tap) = tap.filter(|_| !port.rtcp) {
            tap.attribute(port.side, flow.media, reason, rise);
        }
    }
}

/// The runs of a session's streams, by their places in its tap.
fn runs_in_progress<'a>(flows: &'a [Flow], session: &Session) -> [Option<&'a Live>; STREAMS_MAX] {
    let mut live = [None; STREAMS_MAX];
    let legs = session
        .flows
        .iter()
        .flat_map(|&flow| &flows[flow as usize].legs);
    for Stream {
        tapped, live: run, ..
    } in legs.flat_map(|leg| leg.streams.streams())
    {
        // A sum's streams have no runs; they share a place.
        if let Some(place) = live.get_mut(usize::from(*tapped)) {
            *place = Some(run);
        }
    }
    live
}
