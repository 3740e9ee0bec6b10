//! Ports left unread for a while, as more comes to them than the worker could drain.
//!
//! What comes meanwhile waits in the port's socket; what that cannot hold the kernel drops and
//! counts, and the call's receipt shows it. Other calls do not notice.

use std::collections::VecDeque;

use trunkline_device::Device;
use trunkline_engine::UNREAD_NS;

/// See the module.
#[derive(Debug)]
pub(super) struct Unread {
    /// When which slot is read again, in order.
    slots: VecDeque<(u64, u32)>,
    /// Times that a port was left unread.
    pub(super) total: u64,
}

impl Unread {
    pub(super) fn new(slots_max: u32) -> Self {
        Self {
            slots: VecDeque::with_capacity(slots_max as usize),
            total: 0,
        }
    }

    /// Leaves a slot unread from now on, unless it is already.
    pub(super) fn leave(&mut self, now_ns: u64, slot: u32, device: &mut impl Device) {
        if device.pause(slot) {
            self.slots.push_back((now_ns + UNREAD_NS, slot));
            self.total += 1;
        }
    }

    /// Reads those again whose time is over. A slot whose socket has changed meanwhile is not
    /// paused, or is read again a little early.
    pub(super) fn read_again(&mut self, now_ns: u64, device: &mut impl Device) {
        while let Some(&(due_ns, slot)) = self.slots.front()
            && now_ns >= due_ns
        {
            self.slots.pop_front();
            device.resume(slot);
        }
    }

    pub(super) fn next_deadline_ns(&self) -> Option<u64> {
        self.slots.front().map(|&(due_ns, _)| due_ns)
    }
}
