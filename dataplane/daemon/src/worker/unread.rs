//! Ports left unread for a while, as more comes to them than the worker could drain.
//!
//! What comes meanwhile the kernel drops and counts, at once or when the port's socket is full, and
//! the call's receipt shows it. Other calls do not notice.

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

    /// Tells what was dropped at slots that are left unread: slot and number.
    pub(super) fn take_drops(&self, device: &mut impl Device, mut tell: impl FnMut(u32, u64)) {
        for &(_, slot) in &self.slots {
            let dropped = device.take_unread_drops(slot);
            if dropped > 0 {
                tell(slot, dropped);
            }
        }
    }

    /// Whether [`Self::read_again`] has something to do.
    pub(super) fn is_due(&self, now_ns: u64) -> bool {
        self.next_deadline_ns()
            .is_some_and(|due_ns| now_ns >= due_ns)
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
