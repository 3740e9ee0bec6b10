//! Commands to a session's forks, and their reports by time.

use crate::actions::Actions;
use crate::engine::{Engine, NEVER};
use crate::flow::Session;
use crate::fork::Fork;
use crate::spec::{EngineError, FORKS_MAX, ForkState, ForkStats, MediaKind};

/// How often a recorder gets sender reports (RFC 3550 section 6.2).
const REPORT_NS: u64 = 5_000_000_000;
/// Sessions whose forks report in one call.
const REPORTS_A_CALL: usize = 32;
/// When those that one call had no room for go on.
const REPORT_AGAIN_NS: u64 = 1_000_000;

impl Engine {
    /// Starts a fork from a session to `target`, or tells one that is there of new m-lines.
    /// `unix_offset_ns` is CLOCK_REALTIME minus CLOCK_MONOTONIC, for the times in sender reports.
    ///
    /// # Errors
    /// One of the sessions is not there (or both are one, or `target` itself forks or is another's
    /// target), or there are [`FORKS_MAX`] forks.
    pub fn start_fork(
        &mut self,
        now_ns: u64,
        session: u64,
        target: u64,
        unix_offset_ns: u64,
    ) -> Result<(), EngineError> {
        let owner = *self.index.get(&session).ok_or(EngineError::NotFound)?;
        let to = *self.index.get(&target).ok_or(EngineError::NotFound)?;
        let (from, into) = (self.seen(owner)?, self.seen(to)?);
        let taken = into.fork_of.is_some_and(|other| other != session) || !into.forks.is_empty();
        if owner == to || taken || from.fork_of.is_some() {
            return Err(EngineError::WrongState);
        }
        let known = from.forks.contains(&target);
        if !known && from.forks.len() >= FORKS_MAX {
            return Err(EngineError::NoCapacity);
        }
        let pairs: Vec<(u32, u32)> = from
            .flows
            .iter()
            .copied()
            .zip(into.flows.iter().copied())
            .collect();
        for (flow, target_flow) in pairs {
            let both_rtp = [flow, target_flow]
                .iter()
                .all(|&at| self.flows[at as usize].kind != MediaKind::OpaqueDatagram);
            let has = self.flows[flow as usize]
                .forks
                .iter()
                .any(|fork| fork.target == target);
            if has || !both_rtp {
                continue;
            }
            let fork = Fork::new(target, &self.flows[target_flow as usize].legs);
            self.flows[flow as usize].forks.push(fork);
        }
        for &flow in &self.seen(to)?.flows.clone() {
            self.flows[flow as usize].is_fork_target = true;
        }
        self.session(target)?.fork_of = Some(session);
        let found = self.session(session)?;
        if !known {
            found.forks.push(target);
            found.unix_offset_ns = unix_offset_ns;
            found.report_ns = now_ns.saturating_add(REPORT_NS);
        }
        let due_ns = found.report_ns;
        self.forking_sessions.insert(owner);
        self.report_ns = self.report_ns.min(due_ns);
        Ok(())
    }

    /// Holds copies back, silences them, or lets them go on.
    ///
    /// # Errors
    /// No such fork.
    pub fn set_fork_state(
        &mut self,
        session: u64,
        target: u64,
        state: ForkState,
    ) -> Result<(), EngineError> {
        let found = self.session(session)?;
        if !found.forks.contains(&target) {
            return Err(EngineError::NotFound);
        }
        for flow in found.flows.clone() {
            for fork in &mut self.flows[flow as usize].forks {
                if fork.target == target {
                    fork.state = state;
                }
            }
        }
        Ok(())
    }

    /// Ends a fork. The target session stays.
    ///
    /// # Errors
    /// No such fork.
    pub fn stop_fork(&mut self, session: u64, target: u64) -> Result<(), EngineError> {
        let owner = *self.index.get(&session).ok_or(EngineError::NotFound)?;
        let found = self.session(session)?;
        let before = found.forks.len();
        found.forks.retain(|&other| other != target);
        if found.forks.len() == before {
            return Err(EngineError::NotFound);
        }
        let last = found.forks.is_empty();
        for flow in found.flows.clone() {
            self.flows[flow as usize]
                .forks
                .retain(|fork| fork.target != target);
        }
        if let Ok(into) = self.session(target) {
            into.fork_of = None;
        }
        if last {
            self.forking_sessions.remove(&owner);
        }
        Ok(())
    }

    /// Appends what each side of each m-line of a fork has sent. False when there is no such fork.
    pub fn fork_stats(&self, session: u64, target: u64, out: &mut Vec<ForkStats>) -> bool {
        let Some(found) = self
            .peek(session)
            .filter(|found| found.forks.contains(&target))
        else {
            return false;
        };
        for &flow in &found.flows {
            let flow = &self.flows[flow as usize];
            for fork in flow.forks.iter().filter(|fork| fork.target == target) {
                fork.stats(flow.media, out);
            }
        }
        true
    }

    /// When RTCP last came from a target's far end, 0 = never.
    #[must_use]
    pub fn fork_heard_ns(&self, target: u64) -> u64 {
        let flows = self.peek(target).map_or(&[][..], |target| &target.flows);
        let legs = flows
            .iter()
            .flat_map(|&flow| &self.flows[flow as usize].legs);
        legs.map(|leg| leg.heard_ns()).max().unwrap_or(0)
    }

    /// A leg of a target was described anew.
    pub(crate) fn follow_target(&mut self, target: u64, media: u8) {
        let Some(into) = self.peek(target) else {
            return;
        };
        let Some(session) = into.fork_of else { return };
        let Some(&target_flow) = into.flows.get(usize::from(media)) else {
            return;
        };
        let from = self.peek(session);
        let Some(&flow) = from.and_then(|from| from.flows.get(usize::from(media))) else {
            return;
        };
        let Ok([flow, into]) = self
            .flows
            .get_disjoint_mut([flow as usize, target_flow as usize])
        else {
            return;
        };
        for fork in flow.forks.iter_mut().filter(|fork| fork.target == target) {
            for (way, leg) in fork.ways.iter_mut().zip(&into.legs) {
                way.follow(leg);
            }
        }
    }

    /// A session goes away: forks from it and the fork into it end.
    pub(crate) fn end_forks(&mut self, session: u64) {
        let Some(found) = self.peek(session) else {
            return;
        };
        let (into, from) = (found.forks.clone(), found.fork_of);
        for target in into {
            let _ = self.stop_fork(session, target);
        }
        if let Some(from) = from {
            let _ = self.stop_fork(from, session);
        }
    }

    /// Sends sender reports of some sessions' forks.
    pub(crate) fn report_forks(&mut self, now_ns: u64, actions: &mut impl Actions) {
        let mut next_ns = NEVER;
        let mut reported = 0;
        for &owner in &self.forking_sessions {
            let Some(session) = &mut self.sessions[owner as usize] else {
                continue;
            };
            if session.report_ns > now_ns || reported >= REPORTS_A_CALL {
                let again_ns = session.report_ns.max(now_ns + REPORT_AGAIN_NS);
                next_ns = next_ns.min(again_ns);
                continue;
            }
            reported += 1;
            session.report_ns = now_ns.saturating_add(REPORT_NS);
            next_ns = next_ns.min(session.report_ns);
            for &flow in &session.flows {
                for fork in &self.flows[flow as usize].forks {
                    fork.report(now_ns, session.unix_offset_ns, actions);
                }
            }
        }
        self.report_ns = next_ns;
    }

    fn seen(&self, owner: u32) -> Result<&Session, EngineError> {
        self.sessions[owner as usize]
            .as_ref()
            .ok_or(EngineError::NotFound)
    }
}
