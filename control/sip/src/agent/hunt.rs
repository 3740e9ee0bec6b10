//! Several targets for one call: tried one after the other, or rung at once.

use std::collections::VecDeque;
use std::time::Instant;

use super::core::Agent;
use super::event::EventKind;
use super::types::{AgentError, AttemptHandle, HuntHandle, Invite};
use crate::message::{Headers, Response};

/// What a hunt still has to try, and the best failure so far.
#[derive(Debug)]
pub(super) struct Hunt<C> {
    context: C,
    waiting: VecDeque<Vec<Invite>>,
    branches: Vec<AttemptHandle>,
    next_on: Vec<u16>,
    best: Option<(u16, Option<Response>)>,
}

impl<C: Clone + Default> Agent<C> {
    /// Looks for somebody who answers: the groups are tried in order, the targets of a group
    /// ring at once. Each branch is an attempt of its own, with its own Call-ID and its own
    /// events; the first that answers wins ([`EventKind::Answered`]), the others are cancelled,
    /// and one that answers all the same is acknowledged and ended. The next group follows when
    /// all of one failed, the last of them with a status of `next_on`; a 6xx, or another
    /// status of a whole group, ends the hunt with [`EventKind::HuntFailed`].
    pub fn hunt(
        &mut self,
        now: Instant,
        groups: Vec<Vec<Invite>>,
        next_on: &[u16],
        context: C,
    ) -> HuntHandle {
        let handle = HuntHandle(self.next_number());
        let hunt = Hunt {
            context,
            waiting: groups.into(),
            branches: Vec::new(),
            next_on: next_on.to_vec(),
            best: None,
        };
        self.hunts.insert(handle, hunt);
        self.next_group(now, handle);
        handle
    }

    /// Gives a hunt up: every branch is cancelled, no further target is tried.
    ///
    /// # Errors
    /// It is over.
    pub fn cancel_hunt(
        &mut self,
        now: Instant,
        hunt: HuntHandle,
        headers: &Headers,
    ) -> Result<(), AgentError> {
        let gone = self.gone(hunt.0);
        let own = self.hunts.get_mut(&hunt).ok_or(gone)?;
        own.waiting.clear();
        for branch in own.branches.clone() {
            let _ = self.cancel(now, branch, headers);
        }
        Ok(())
    }

    /// Rings the next group; without one the hunt has failed.
    fn next_group(&mut self, now: Instant, handle: HuntHandle) {
        while let Some(hunt) = self.hunts.get_mut(&handle) {
            let Some(group) = hunt.waiting.pop_front() else {
                break;
            };
            let context = hunt.context.clone();
            for invite in group {
                match self.call_as(now, invite, context.clone(), Some(handle)) {
                    Ok(branch) => {
                        if let Some(hunt) = self.hunts.get_mut(&handle) {
                            hunt.branches.push(branch);
                        }
                    }
                    Err(_) => self.note_failure(handle, 503, None),
                }
            }
            if self
                .hunts
                .get(&handle)
                .is_some_and(|hunt| !hunt.branches.is_empty())
            {
                return;
            }
        }
        let Some(hunt) = self.hunts.remove(&handle) else {
            return;
        };
        let (status, response) = hunt.best.unwrap_or((404, None));
        let kind = EventKind::HuntFailed {
            hunt: handle,
            status,
            response,
        };
        self.tell_hunt(hunt.context, kind);
    }

    fn note_failure(&mut self, handle: HuntHandle, status: u16, response: Option<Response>) {
        let Some(hunt) = self.hunts.get_mut(&handle) else {
            return;
        };
        let better = hunt.best.as_ref().is_none_or(|(best, known)| {
            rank(status, response.is_some()) < rank(*best, known.is_some())
        });
        if better {
            hunt.best = Some((status, response));
        }
    }

    pub(super) fn branch_failed(
        &mut self,
        now: Instant,
        handle: HuntHandle,
        branch: AttemptHandle,
        status: u16,
        response: Option<Response>,
    ) {
        self.note_failure(handle, status, response);
        let Some(hunt) = self.hunts.get_mut(&handle) else {
            return;
        };
        hunt.branches.retain(|own| *own != branch);
        if status >= 600 {
            // Nobody else shall ring (RFC 3261 section 16.7).
            let _ = self.cancel_hunt(now, handle, &Headers::new());
        }
        let Some(hunt) = self.hunts.get_mut(&handle) else {
            return;
        };
        if hunt.branches.is_empty() {
            if !hunt.next_on.contains(&status) {
                hunt.waiting.clear();
            }
            self.next_group(now, handle);
        }
    }

    /// One has won: the others of its group are cancelled, and the hunt is over.
    pub(super) fn branch_answered(
        &mut self,
        now: Instant,
        handle: HuntHandle,
        winner: AttemptHandle,
    ) {
        let Some(hunt) = self.hunts.remove(&handle) else {
            return;
        };
        let mut reason = Headers::new();
        reason.append("Reason", "SIP;cause=200;text=\"Call completed elsewhere\"");
        for branch in hunt.branches.into_iter().filter(|own| *own != winner) {
            let _ = self.cancel(now, branch, &reason);
        }
    }
}

/// The lower the better: what somebody really answered before our own 408 and 503, a 6xx before
/// all, then the lower class.
fn rank(status: u16, received: bool) -> (bool, u16) {
    let class = if status >= 600 { 0 } else { status / 100 };
    (!received, class)
}
