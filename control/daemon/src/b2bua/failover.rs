//! Another address of the same target, when one does not answer (RFC 3263 section 4.3).

use std::time::Duration;

use trunkline_sip::dialog::SessionPolicy;

use super::B2bua;
use super::outgoing::sent_sdp;
use crate::call::{Call, Destination};
use crate::clock::Moment;

impl B2bua {
    /// The target of a branch that failed is tried at its next address, by a new INVITE. False when it
    /// has no other.
    pub(super) fn try_other(&mut self, call: &mut Call, index: usize, now: &Moment) -> bool {
        let branch = &call.branches[index];
        let destination = branch.destination.clone();
        let sdp = sent_sdp(&branch.sent);
        self.ring_other(call, destination, sdp.as_deref(), now)
    }

    /// The same of a target whose present address was never reached.
    pub(super) fn ring_other(
        &mut self,
        call: &mut Call,
        mut destination: Destination,
        sdp: Option<&str>,
        now: &Moment,
    ) -> bool {
        let sdp = sdp.filter(|sdp| !sdp.is_empty());
        while destination.next_hop() {
            let policy = SessionPolicy::default();
            if self
                .send_invite(call, &destination, sdp, policy, now)
                .is_ok()
            {
                self.await_progress(call, now);
                return true;
            }
        }
        false
    }

    /// From now on a target that says nothing is given up after the route's time for that.
    pub(super) fn await_progress(&self, call: &mut Call, now: &Moment) {
        let connect = Duration::from_millis(u64::from(call.route.connect_timeout_ms));
        call.connect_deadline = Some(now.instant + connect);
    }
}
