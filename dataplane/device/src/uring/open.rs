//! Setting a ring up, judging whether this kernel can do what the device needs, and taking it down.

use std::collections::VecDeque;
use std::net::UdpSocket;
use std::os::fd::OwnedFd;

use super::*;
use crate::egress::PLACES_MAX;

/// Submission entries: several batches.
const SUBMISSION_ENTRIES: u32 = 2048;
/// Slots of the shared receive sockets, behind those of the ports.
const SHARED_SLOTS: u32 = 2;
/// The kernel's limit.
const COMPLETION_ENTRIES_MAX: u32 = 65_536;
/// Longest that taking the device down waits for the kernel to let go.
const CLOSE_ROUNDS: usize = 20;
/// What the device sends to itself when it is opened.
const TEST: &[u8] = b"trunkline self-test";
const SELF_TEST_ROUNDS: usize = 4;
const CLOSE_ROUND_NS: u64 = 50_000_000;

impl UringDevice {
    /// Opens the device on the calling thread, which alone may use it.
    ///
    /// # Errors
    /// A value of `config` does not fit, or the kernel does not allow or know what is needed
    /// (blocked by seccomp or sysctl, locked-memory limit, too old).
    pub fn open(config: &Config) -> Result<Self, DeviceError> {
        config.check()?;
        let system = |what| move |source| DeviceError::System { what, source };
        // What can be outstanding: filled buffers, failed sends, and for each slot the end of its
        // receive and changes of its file.
        let completions = config.buffers + 2 * SUBMISSION_ENTRIES + 2 * config.slots_max;
        let completions = completions.next_power_of_two().min(COMPLETION_ENTRIES_MAX);
        let shared_from = config.slots_max + SHARED_SLOTS;
        let slots = shared_from + PLACES_MAX as u32;
        let places = slots - config.slots_max + config.slots_max.min(config.sockets_max);
        let ring = build(completions).map_err(system("io_uring_setup"))?;
        ring.submitter()
            .register_files_sparse(places)
            .map_err(system(
                "register files (more slots than open files allowed?)",
            ))?;
        let pool = Pool::new(config.buffers + config.copies)?;
        let doorbell = config.doorbell.as_ref().map(OwnedFd::try_clone).transpose();
        let doorbell = doorbell.map_err(system("duplicate the doorbell"))?;
        let buffers = BufferRing::register(&ring, config.buffers)?;
        let handle = RingHandle::register(&ring);
        let mut device = Self {
            ring,
            handle,
            buffers,
            pool,
            slots: Slots::new(slots, places),
            slots_max: config.slots_max,
            steering: Err("not asked for".to_owned()),
            strangers_before: 0,
            egress: None,
            shared_from,
            late_sockets: LATE_SOCKETS_MAX,
            sending: Vec::with_capacity(SUBMISSION_ENTRIES as usize),
            backlog: VecDeque::new(),
            starved: Vec::with_capacity(config.slots_max as usize),
            peeked: None,
            doorbell,
            rung: false,
            slot_events: VecDeque::with_capacity(config.slots_max as usize),
            template: receive_template(),
            counters: Counters::default(),
            send_errno: 0,
            batch_max: config.batch_max,
        };
        for _ in 0..config.buffers {
            let Some(buffer) = device.pool.take() else {
                break;
            };
            device.buffers.put(&device.pool, buffer);
        }
        device.self_test()?;
        if config.steer {
            device.steer();
        }
        let egress = |seat| Egress::new(seat, config.slots_max);
        device.egress = config.routes.clone().map(egress);
        device.counters = Counters::default();
        device.arm_doorbell();
        device.enter(Wait::No);
        Ok(device)
    }

    /// Whether a device can be opened on this machine at all, by opening a small one.
    #[must_use]
    pub fn is_allowed() -> bool {
        let smallest = Config {
            slots_max: 4,
            buffers: 64,
            copies: 4,
            steer: false,
            ..Config::default()
        };
        Self::open(&smallest).is_ok()
    }

    /// Receives through shared sockets from now on, or remembers why not.
    fn steer(&mut self) {
        let steering = Steering::open(self.slots_max);
        self.steering =
            steering.map_err(|(what, error)| format!("{what}: {error}{}", hint(&error)));
        let Ok(steering) = &self.steering else { return };
        match steering.sockets() {
            Ok(sockets) => {
                for (slot, socket) in (self.slots_max..).zip(sockets) {
                    // A slot of our own, never taken before.
                    let taken = self.slots.take(slot, socket);
                    debug_assert!(taken.is_ok());
                    self.begin_receive(slot);
                }
            }
            Err(error) => self.steering = Err(error.to_string()),
        }
        let refused = self.self_test().err().map(|error| error.to_string());
        if let Some(reason) = refused
            .or((self.counters.steered == 0).then(|| "self-test: it does not steer".to_owned()))
        {
            self.steering = Err(reason);
        }
    }

    /// Sends a datagram to ourselves over the loopback: older kernels accept the set-up and refuse
    /// the operations. Where the loopback does not carry it, nothing is concluded.
    fn self_test(&mut self) -> Result<(), DeviceError> {
        let Ok(socket) = UdpSocket::bind("127.0.0.1:0") else {
            return Ok(());
        };
        let Ok(own) = socket.local_addr() else {
            return Ok(());
        };
        self.install(0, socket.into())?;
        self.send_copy(0, &own, TEST);
        let mut batch = Vec::new();
        let mut refused = None;
        for _ in 0..SELF_TEST_ROUNDS {
            self.park(CLOSE_ROUND_NS);
            self.receive(&mut batch);
            if let Some(SlotEvent::Failed { errno, .. }) = self.slot_event() {
                refused = Some(errno);
            }
            if [libc::EINVAL, libc::EOPNOTSUPP].contains(&self.send_errno) {
                refused = Some(self.send_errno);
            }
            if !batch.is_empty() || refused.is_some() || self.counters.send_failed > 0 {
                break;
            }
        }
        let came_whole = |packet: &Received| packet.source == own && *packet.buffer == *TEST;
        let strange = !batch.is_empty() && !batch.iter().any(came_whole);
        batch
            .drain(..)
            .for_each(|packet| self.recycle(packet.buffer));
        self.close_slots(0..self.slots_max);
        match refused.or(strange.then_some(libc::EOPNOTSUPP)) {
            None => Ok(()),
            Some(errno) => Err(DeviceError::System {
                what: "io_uring datagram self-test",
                source: io::Error::from_raw_os_error(errno),
            }),
        }
    }

    /// Removes every socket and waits until the kernel has let go; says whether it has.
    fn close_all(&mut self) -> bool {
        self.close_slots(0..self.slots.entries.len() as u32)
    }

    /// The same for some slots.
    fn close_slots(&mut self, slots: std::ops::Range<u32>) -> bool {
        for slot in slots.clone() {
            if self.slots.entries[slot as usize].state == State::Open {
                self.begin_close(slot);
            }
        }
        let slots = slots.start as usize..slots.end as usize;
        let mut batch = Vec::new();
        for round in 0..CLOSE_ROUNDS {
            while let Some(completion) = self.next_completion() {
                batch.extend(self.complete(&completion));
            }
            batch
                .drain(..)
                .for_each(|packet| self.recycle(packet.buffer));
            self.slot_events.clear();
            if self.slots.entries[slots.clone()]
                .iter()
                .all(|entry: &Entry| entry.state == State::Free)
            {
                return self.sending.is_empty();
            }
            self.enter(if round == 0 {
                Wait::No
            } else {
                Wait::AtMost(CLOSE_ROUND_NS)
            });
        }
        false
    }
}

/// What an operator can do about it.
fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "; it takes CAP_BPF and CAP_NET_ADMIN, and a seccomp profile that lets bpf(2) through"
        }
        Some(libc::ENOSYS | libc::EINVAL) => "; the kernel is older than 5.11",
        _ => "",
    }
}

/// Sets the ring up, without what only newer kernels know if need be.
fn build(completions: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_taskrun_flag()
        .setup_submit_all()
        .setup_cqsize(completions);
    let plain = builder.clone();
    match builder.setup_no_sqarray().build(SUBMISSION_ENTRIES) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => plain.build(SUBMISSION_ENTRIES),
        result => result,
    }
}

impl Drop for UringDevice {
    fn drop(&mut self) {
        let quiet = !std::thread::panicking() && self.close_all();
        if quiet && self.ring.submitter().unregister_buf_ring(GROUP).is_ok() {
            self.pool.reclaim_lent(self.buffers.filled());
            // SAFETY: just unregistered.
            unsafe { self.buffers.free() };
        } else {
            // The kernel may still read and write: what it was shown is leaked, not freed. The
            // pool keeps its memory by itself while buffers are lent.
            Box::leak(std::mem::replace(&mut self.template, receive_template()));
            self.slots.leak();
        }
    }
}

/// Room for an address and one control message; the bytes' place comes from the buffer ring.
fn receive_template() -> Box<libc::msghdr> {
    // SAFETY: msghdr is plain data for which all zeroes is valid.
    let mut template: libc::msghdr = unsafe { std::mem::zeroed() };
    template.msg_namelen = ADDRESS_BYTES as u32;
    template.msg_controllen = CONTROL_BYTES;
    Box::new(template)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_lets_go_of_everything_when_the_device_closes() {
        let config = Config {
            slots_max: 64,
            buffers: 64,
            copies: 8,
            ..Config::default()
        };
        let mut device = UringDevice::open(&config).unwrap();
        for slot in 0..64 {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            let own = socket.local_addr().unwrap();
            device.install(slot, socket.into()).unwrap();
            device.send_copy(slot, &own, b"still under way");
        }
        assert!(device.close_all());
        assert_eq!(device.buffers.filled(), 64);
    }
}
