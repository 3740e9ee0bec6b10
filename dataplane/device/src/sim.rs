//! A device in memory: tests put datagrams in and read what was sent, without sockets or time.
//!
//! [`SimNet`] is the far end. Its [`Link`] loses, duplicates and reorders by a seed, so a failing
//! test fails again.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::buffer::{BUFFER_BYTES, Buffer, Pool};
use crate::device::{Config, Counters, Device, DeviceError, Received, SlotEvent, Wake};

/// A datagram on its way in or out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Slot of the device it came in on or left from.
    pub slot: u32,
    /// The far address: source of what comes in, destination of what leaves.
    pub remote: SocketAddr,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// What happens to injected datagrams, in parts of 65,536.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// Chance to be lost.
    pub loss: u16,
    /// Chance to arrive twice.
    pub duplicate: u16,
    /// Chance to be held back and delivered after the next datagram of any slot.
    pub reorder: u16,
}

/// What a [`Link`] did so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounts {
    /// Datagrams lost.
    pub lost: u64,
    /// Extra copies made.
    pub duplicated: u64,
    /// Datagrams delivered later than their successor.
    pub reordered: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SlotState {
    Free,
    Open,
    Refusing,
}

struct State {
    slots: Vec<SlotState>,
    inbound: VecDeque<Datagram>,
    held: Option<Datagram>,
    outbound: Vec<Datagram>,
    doorbell: bool,
    link: Link,
    counts: LinkCounts,
    random: u64,
    shared_drops: u64,
    /// Slots left unread.
    paused: Vec<u32>,
    /// What comes to them is dropped.
    drops_unread: bool,
    unread_drops: HashMap<u32, u64>,
}

impl State {
    /// SplitMix64: small, seeded, the same everywhere.
    fn chance(&mut self, part: u16) -> bool {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) as u16) < part
    }
}

/// The far end of a [`SimDevice`]; may be cloned and used from another thread.
#[derive(Clone)]
pub struct SimNet {
    state: Arc<Mutex<State>>,
}

impl SimNet {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the link's faults in force from here on, with a fresh seed.
    pub fn set_link(&self, link: Link, seed: u64) {
        let mut state = self.state();
        state.link = link;
        state.random = seed;
    }

    /// What the link did.
    #[must_use]
    pub fn link_counts(&self) -> LinkCounts {
        self.state().counts
    }

    /// Sends a datagram from `source` to the socket at `slot`. Nothing arrives at an empty slot.
    pub fn inject(&self, slot: u32, source: SocketAddr, bytes: &[u8]) {
        let mut guard = self.state();
        let state = &mut *guard;
        if state.chance(state.link.loss) {
            state.counts.lost += 1;
            return;
        }
        if state.drops_unread && state.paused.contains(&slot) {
            *state.unread_drops.entry(slot).or_default() += 1;
            return;
        }
        let datagram = Datagram {
            slot,
            remote: source,
            bytes: bytes.to_vec(),
        };
        if state.chance(state.link.duplicate) {
            state.counts.duplicated += 1;
            state.inbound.push_back(datagram.clone());
        }
        if state.held.is_none() && state.chance(state.link.reorder) {
            state.held = Some(datagram);
            return;
        }
        state.inbound.push_back(datagram);
        if let Some(held) = state.held.take() {
            state.counts.reordered += 1;
            state.inbound.push_back(held);
        }
    }

    /// Has the kernel drop datagrams on a socket that slots share: they never come in, and
    /// [`Device::take_shared_drops`] tells how many.
    pub fn drop_shared(&self, datagrams: u64) {
        self.state().shared_drops += datagrams;
    }

    /// From now on what comes to a slot left unread is dropped and counted, as where ports share a
    /// socket, rather than held for later.
    pub fn drop_unread(&self) {
        self.state().drops_unread = true;
    }

    /// Delivers a datagram that the link still holds back.
    pub fn settle(&self) {
        let mut state = self.state();
        if let Some(held) = state.held.take() {
            state.inbound.push_back(held);
        }
    }

    /// Takes everything sent so far, oldest first.
    #[must_use]
    pub fn sent(&self) -> Vec<Datagram> {
        std::mem::take(&mut self.state().outbound)
    }

    /// Rings the device's doorbell.
    pub fn ring(&self) {
        self.state().doorbell = true;
    }

    /// Makes every send from `slot` fail, or work again.
    pub fn refuse_sends(&self, slot: u32, refuse: bool) {
        let mut state = self.state();
        if let Some(entry) = state.slots.get_mut(slot as usize)
            && *entry != SlotState::Free
        {
            *entry = if refuse {
                SlotState::Refusing
            } else {
                SlotState::Open
            };
        }
    }
}

/// See the module.
pub struct SimDevice {
    net: SimNet,
    pool: Pool,
    queued: Vec<(u32, SocketAddr, Buffer)>,
    closed: VecDeque<SlotEvent>,
    counters: Counters,
    batch_max: usize,
}

impl SimDevice {
    /// A device and its far end. Links start faultless.
    ///
    /// # Errors
    /// A value of `config` does not fit.
    pub fn new(config: &Config) -> Result<(Self, SimNet), DeviceError> {
        config.check()?;
        let state = State {
            slots: vec![SlotState::Free; config.slots_max as usize],
            inbound: VecDeque::new(),
            held: None,
            outbound: Vec::new(),
            doorbell: false,
            link: Link::default(),
            counts: LinkCounts::default(),
            random: 0,
            shared_drops: 0,
            paused: Vec::new(),
            drops_unread: false,
            unread_drops: HashMap::new(),
        };
        let net = SimNet {
            state: Arc::new(Mutex::new(state)),
        };
        let device = Self {
            net: net.clone(),
            pool: Pool::new(config.buffers + config.copies)?,
            queued: Vec::new(),
            closed: VecDeque::new(),
            counters: Counters::default(),
            batch_max: config.batch_max,
        };
        Ok((device, net))
    }

    /// [`Device::install`] without a socket.
    ///
    /// # Errors
    /// The slot is out of range or in use.
    pub fn open_slot(&mut self, slot: u32) -> Result<(), DeviceError> {
        match self.net.state().slots.get_mut(slot as usize) {
            None => Err(DeviceError::SlotRange(slot)),
            Some(state @ SlotState::Free) => {
                *state = SlotState::Open;
                Ok(())
            }
            Some(_) => Err(DeviceError::SlotBusy(slot)),
        }
    }

    /// Buffers that are neither with the worker nor queued.
    #[must_use]
    pub fn buffers_free(&self) -> usize {
        self.pool.free()
    }
}

impl Device for SimDevice {
    fn install(&mut self, slot: u32, _socket: OwnedFd) -> Result<(), DeviceError> {
        self.open_slot(slot)
    }

    fn remove(&mut self, slot: u32) -> Result<(), DeviceError> {
        let mut state = self.net.state();
        match state.slots.get_mut(slot as usize) {
            None => return Err(DeviceError::SlotRange(slot)),
            Some(SlotState::Free) => return Err(DeviceError::SlotEmpty(slot)),
            Some(entry) => *entry = SlotState::Free,
        }
        let before = state.inbound.len();
        state.inbound.retain(|datagram| datagram.slot != slot);
        self.counters.late += (before - state.inbound.len()) as u64;
        state.paused.retain(|paused| *paused != slot);
        state.unread_drops.remove(&slot);
        drop(state);
        self.closed.push_back(SlotEvent::Closed { slot });
        Ok(())
    }

    fn pause(&mut self, slot: u32) -> bool {
        let mut state = self.net.state();
        let entry = state.slots.get(slot as usize);
        let open = entry.is_some_and(|entry| *entry != SlotState::Free);
        let pause = open && !state.paused.contains(&slot);
        if pause {
            state.paused.push(slot);
        }
        pause
    }

    fn resume(&mut self, slot: u32) {
        let mut state = self.net.state();
        state.paused.retain(|paused| *paused != slot);
    }

    fn take_unread_drops(&mut self, slot: u32) -> u64 {
        let mut state = self.net.state();
        state.unread_drops.remove(&slot).unwrap_or(0)
    }

    fn slot_event(&mut self) -> Option<SlotEvent> {
        self.closed.pop_front()
    }

    fn receive(&mut self, batch: &mut Vec<Received>) -> usize {
        let mut state = self.net.state();
        let mut count = 0;
        while count < self.batch_max {
            let paused = &state.paused;
            let read = |datagram: &Datagram| !paused.contains(&datagram.slot);
            let place = state.inbound.iter().position(read);
            let Some(datagram) = place.and_then(|at| state.inbound.remove(at)) else {
                break;
            };
            if state
                .slots
                .get(datagram.slot as usize)
                .is_none_or(|slot| *slot == SlotState::Free)
            {
                continue;
            }
            let Some(mut buffer) = self.pool.take() else {
                self.counters.buffers_exhausted += 1;
                state.inbound.push_front(datagram);
                break;
            };
            let truncated = datagram.bytes.len() >= BUFFER_BYTES;
            let length = datagram.bytes.len().min(BUFFER_BYTES);
            buffer.set_len(length);
            buffer.copy_from_slice(&datagram.bytes[..length]);
            self.counters.truncated += u64::from(truncated);
            self.counters.received += 1;
            count += 1;
            let Datagram {
                slot,
                remote: source,
                ..
            } = datagram;
            batch.push(Received {
                slot,
                truncated,
                source,
                buffer,
            });
        }
        count
    }

    fn send(&mut self, slot: u32, to: &SocketAddr, buffer: Buffer) {
        self.queued.push((slot, *to, buffer));
    }

    fn send_copy(&mut self, slot: u32, to: &SocketAddr, bytes: &[u8]) {
        match self.pool.take() {
            Some(mut buffer) if bytes.len() <= BUFFER_BYTES => {
                buffer.set_len(bytes.len());
                buffer.copy_from_slice(bytes);
                self.send(slot, to, buffer);
            }
            refused => {
                self.counters.send_failed += 1;
                if let Some(buffer) = refused {
                    self.pool.give(buffer);
                }
            }
        }
    }

    fn recycle(&mut self, buffer: Buffer) {
        self.pool.give(buffer);
    }

    fn flush(&mut self) {
        let mut state = self.net.state();
        for (slot, remote, buffer) in self.queued.drain(..) {
            if state.slots.get(slot as usize) == Some(&SlotState::Open) {
                state.outbound.push(Datagram {
                    slot,
                    remote,
                    bytes: buffer.to_vec(),
                });
                self.counters.sent += 1;
            } else {
                self.counters.send_failed += 1;
            }
            self.pool.give(buffer);
        }
    }

    fn park(&mut self, _timeout_ns: u64) -> Wake {
        self.flush();
        let mut state = self.net.state();
        let read = |datagram: &Datagram| !state.paused.contains(&datagram.slot);
        let packets = state.inbound.iter().any(read);
        Wake {
            packets: packets || !self.closed.is_empty(),
            doorbell: std::mem::take(&mut state.doorbell),
        }
    }

    fn take_shared_drops(&mut self) -> u64 {
        std::mem::take(&mut self.net.state().shared_drops)
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn name(&self) -> &'static str {
        "sim"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> (SimDevice, SimNet) {
        SimDevice::new(&Config {
            slots_max: 8,
            buffers: 64,
            copies: 0,
            ..Config::default()
        })
        .unwrap()
    }

    fn remote(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn what_goes_in_is_received_and_sent_in_place() {
        let (mut device, net) = device();
        device.open_slot(3).unwrap();
        assert!(device.open_slot(3).is_err());
        net.inject(3, remote(9), b"hello");
        net.inject(4, remote(9), b"nobody there");
        let mut batch = Vec::new();
        assert_eq!(device.receive(&mut batch), 1);
        let mut packet = batch.pop().unwrap();
        assert_eq!((packet.slot, packet.source), (3, remote(9)));
        packet.buffer[0] = b'j';
        device.send(3, &remote(10), packet.buffer);
        device.send_copy(3, &remote(11), b"copy");
        device.flush();
        let sent = net.sent();
        assert_eq!(sent.len(), 2);
        assert_eq!(
            sent[0],
            Datagram {
                slot: 3,
                remote: remote(10),
                bytes: b"jello".to_vec()
            }
        );
        assert_eq!(sent[1].bytes, b"copy");
        assert_eq!(device.buffers_free(), 64);
    }

    #[test]
    fn oversize_is_flagged_and_an_empty_datagram_is_a_datagram() {
        let (mut device, net) = device();
        device.open_slot(0).unwrap();
        net.inject(0, remote(1), &[7; BUFFER_BYTES]);
        net.inject(0, remote(1), &[7; BUFFER_BYTES - 1]);
        net.inject(0, remote(1), &[]);
        let mut batch = Vec::new();
        device.receive(&mut batch);
        let flags: Vec<bool> = batch.iter().map(|packet| packet.truncated).collect();
        assert_eq!(flags, [true, false, false]);
        assert_eq!(batch[2].buffer.len(), 0);
        assert_eq!(device.counters().truncated, 1);
        batch
            .drain(..)
            .for_each(|packet| device.recycle(packet.buffer));
    }

    #[test]
    fn a_links_faults_are_counted_and_repeat_with_the_seed() {
        let run = |seed| {
            let (mut device, net) = device();
            device.open_slot(0).unwrap();
            net.set_link(
                Link {
                    loss: 6_553,
                    duplicate: 3_276,
                    reorder: 3_276,
                },
                seed,
            );
            let mut order = Vec::new();
            let mut batch = Vec::new();
            for number in 0..1000_u32 {
                net.inject(0, remote(1), &number.to_be_bytes());
                device.receive(&mut batch);
                for packet in batch.drain(..) {
                    order.push(packet.buffer.to_vec());
                    device.recycle(packet.buffer);
                }
            }
            net.settle();
            device.receive(&mut batch);
            for packet in batch.drain(..) {
                order.push(packet.buffer.to_vec());
                device.recycle(packet.buffer);
            }
            let counts = net.link_counts();
            assert_eq!(order.len() as u64, 1000 - counts.lost + counts.duplicated);
            assert!(counts.lost > 50 && counts.duplicated > 10 && counts.reordered > 10);
            order
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn a_removed_slot_gets_nothing_and_a_refusing_one_is_counted() {
        let (mut device, net) = device();
        device.open_slot(1).unwrap();
        device.open_slot(2).unwrap();
        net.inject(1, remote(1), b"x");
        device.remove(1).unwrap();
        assert_eq!(device.slot_event(), Some(SlotEvent::Closed { slot: 1 }));
        assert_eq!(device.receive(&mut Vec::new()), 0);
        net.refuse_sends(2, true);
        device.send_copy(2, &remote(1), b"x");
        device.send_copy(1, &remote(1), b"x");
        device.flush();
        assert_eq!(device.counters().send_failed, 2);
        net.ring();
        assert!(device.park(0).doorbell);
        assert!(!device.park(0).doorbell);
    }
}
