//! The ring under loom (every interleaving of small cases) and with random records.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use proptest::prelude::*;

use super::*;

/// A ring in ordinary memory.
struct Heap {
    tail: AtomicU64,
    overruns: AtomicU64,
    head: AtomicU64,
    parked: AtomicU64,
    words: Vec<AtomicU64>,
}

impl Heap {
    fn new(words: usize) -> Arc<Self> {
        let zero = || AtomicU64::new(0);
        let words = (0..words).map(|_| zero()).collect();
        Arc::new(Self {
            tail: zero(),
            overruns: zero(),
            head: zero(),
            parked: zero(),
            words,
        })
    }
}

impl RingMemory for Arc<Heap> {
    type Word = AtomicU64;
    fn tail(&self) -> &AtomicU64 {
        &self.tail
    }
    fn overruns(&self) -> &AtomicU64 {
        &self.overruns
    }
    fn head(&self) -> &AtomicU64 {
        &self.head
    }
    fn parked(&self) -> &AtomicU64 {
        &self.parked
    }
    fn words(&self) -> &[AtomicU64] {
        &self.words
    }
    fn fence(&self) {
        fence(Ordering::SeqCst);
    }
}

#[test]
fn a_full_ring_pushes_back_and_goes_on_once_read() {
    let memory = Heap::new(16);
    let mut producer = Producer::new(memory.clone(), 64);
    let mut consumer = Consumer::new(memory, 64);
    let mut out = Vec::new();
    let record = [7_u8; 24];
    for _ in 0..4 {
        producer.push(&record).unwrap();
    }
    assert_eq!(producer.push(&record), Err(RingError::Full));
    assert_eq!(producer.push(&[0; 65]), Err(RingError::TooLarge));
    assert!(consumer.pop(&mut out).unwrap());
    assert_eq!(out, record);
    producer.push(&[]).unwrap();
    for _ in 0..3 {
        assert!(consumer.pop(&mut out).unwrap());
    }
    assert!(consumer.pop(&mut out).unwrap());
    assert!(out.is_empty());
    assert!(!consumer.pop(&mut out).unwrap());
}

#[test]
fn the_doorbell_rings_once_a_nap() {
    let memory = Heap::new(64);
    let mut producer = Producer::new(memory.clone(), 64);
    let mut consumer = Consumer::new(memory, 64);
    let mut out = Vec::new();
    assert!(!producer.push(b"awake").unwrap());
    assert!(!consumer.park().unwrap(), "something is waiting");
    assert!(consumer.pop(&mut out).unwrap());
    assert!(consumer.park().unwrap());
    assert!(producer.push(b"wake up").unwrap());
    assert!(!producer.push(b"again").unwrap());
    assert!(consumer.pop(&mut out).unwrap() && consumer.pop(&mut out).unwrap());
    assert!(consumer.park().unwrap());
    assert!(producer.note_overrun());
    assert!(consumer.take_overrun());
    assert!(!consumer.take_overrun());
}

#[test]
fn cursors_and_lengths_of_a_hostile_peer_are_errors() {
    let mut out = Vec::new();
    for hostile in [1, 15, 17, 1 << 40, u64::MAX] {
        let memory = Heap::new(16);
        let mut consumer = Consumer::new(memory.clone(), 64);
        memory.tail.store(hostile, Ordering::Relaxed);
        assert_eq!(
            consumer.pop(&mut out),
            Err(RingError::Corrupt),
            "tail {hostile}"
        );
        memory.tail.store(0, Ordering::Relaxed);
        assert_eq!(consumer.pop(&mut out), Err(RingError::Corrupt), "stays so");
    }
    for hostile in [MARKER | 57, MARKER | 0xFFFF_FFFF, 3, MARKER | 65] {
        let memory = Heap::new(16);
        let mut consumer = Consumer::new(memory.clone(), 64);
        memory.words[0].store(hostile, Ordering::Relaxed);
        memory.tail.store(8, Ordering::Relaxed);
        assert_eq!(
            consumer.pop(&mut out),
            Err(RingError::Corrupt),
            "length {hostile:x}"
        );
    }
    for hostile in [17, 1 << 40, u64::MAX] {
        let memory = Heap::new(16);
        let mut producer = Producer::new(memory.clone(), 64);
        producer.push(&[0; 64]).unwrap();
        memory.head.store(hostile, Ordering::Relaxed);
        assert_eq!(
            producer.push(&[0; 64]),
            Err(RingError::Corrupt),
            "head {hostile}"
        );
    }
}

proptest! {
    #[test]
    fn records_come_out_as_they_went_in(
        steps in prop::collection::vec((any::<bool>(), prop::collection::vec(any::<u8>(), 0..60)), 1..200)
    ) {
        let memory = Heap::new(32);
        let mut producer = Producer::new(memory.clone(), 64);
        let mut consumer = Consumer::new(memory, 64);
        let mut expected = std::collections::VecDeque::new();
        let mut out = Vec::new();
        for (push, record) in steps {
            if push {
                match producer.push(&record) {
                    Ok(_) => expected.push_back(record),
                    Err(error) => prop_assert_eq!(error, RingError::Full),
                }
            } else {
                let popped = consumer.pop(&mut out).unwrap();
                prop_assert_eq!(popped.then(|| out.clone()), expected.pop_front());
            }
        }
    }
}

#[test]
fn two_threads_pass_a_long_stream_in_order() {
    let memory = Heap::new(256);
    let mut producer = Producer::new(memory.clone(), 128);
    let mut consumer = Consumer::new(memory, 128);
    let sender = std::thread::spawn(move || {
        for number in 0..20_000_u32 {
            let record = vec![number as u8; (number % 128) as usize];
            while producer.push(&record) == Err(RingError::Full) {
                std::thread::yield_now();
            }
        }
    });
    let mut out = Vec::new();
    for number in 0..20_000_u32 {
        while !consumer.pop(&mut out).unwrap() {
            std::thread::yield_now();
        }
        assert_eq!(out, vec![number as u8; (number % 128) as usize]);
    }
    sender.join().unwrap();
}

/// The same core over loom's atomics.
mod under_loom {
    use super::*;

    struct LoomHeap {
        tail: loom::sync::atomic::AtomicU64,
        overruns: loom::sync::atomic::AtomicU64,
        head: loom::sync::atomic::AtomicU64,
        parked: loom::sync::atomic::AtomicU64,
        words: Vec<loom::sync::atomic::AtomicU64>,
    }

    impl Word for loom::sync::atomic::AtomicU64 {
        fn load(&self, order: Ordering) -> u64 {
            self.load(order)
        }
        fn store(&self, value: u64, order: Ordering) {
            self.store(value, order);
        }
    }

    #[derive(Clone)]
    struct Shared(loom::sync::Arc<LoomHeap>);

    impl Shared {
        fn new(words: usize) -> Self {
            let zero = || loom::sync::atomic::AtomicU64::new(0);
            let words = (0..words).map(|_| zero()).collect();
            Self(loom::sync::Arc::new(LoomHeap {
                tail: zero(),
                overruns: zero(),
                head: zero(),
                parked: zero(),
                words,
            }))
        }
    }

    impl RingMemory for Shared {
        type Word = loom::sync::atomic::AtomicU64;
        fn tail(&self) -> &Self::Word {
            &self.0.tail
        }
        fn overruns(&self) -> &Self::Word {
            &self.0.overruns
        }
        fn head(&self) -> &Self::Word {
            &self.0.head
        }
        fn parked(&self) -> &Self::Word {
            &self.0.parked
        }
        fn words(&self) -> &[Self::Word] {
            &self.0.words
        }
        fn fence(&self) {
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    #[test]
    fn loom_no_record_is_torn_lost_or_doubled_when_the_ring_wraps() {
        loom::model(|| {
            // Four words hold two one-word records, so the third reuses the first one's place.
            let memory = Shared::new(4);
            let mut producer = Producer::new(memory.clone(), 16);
            let mut consumer = Consumer::new(memory, 16);
            let sender = loom::thread::spawn(move || {
                for number in 1..=3_u8 {
                    while let Err(error) = producer.push(&[number; 8]) {
                        assert_eq!(error, RingError::Full);
                        loom::thread::yield_now();
                    }
                }
            });
            let mut out = Vec::new();
            for number in 1..=3_u8 {
                while !consumer.pop(&mut out).unwrap() {
                    loom::thread::yield_now();
                }
                assert_eq!(out, [number; 8]);
            }
            sender.join().unwrap();
        });
    }

    #[test]
    fn loom_a_consumer_that_parks_is_woken_or_sees_the_record() {
        loom::model(|| {
            let memory = Shared::new(4);
            let mut producer = Producer::new(memory.clone(), 8);
            let mut consumer = Consumer::new(memory, 8);
            let sender = loom::thread::spawn(move || producer.push(&[1]).unwrap());
            let asleep = consumer.park().unwrap();
            let rang = sender.join().unwrap();
            assert!(!asleep || rang, "asleep with a record and no doorbell");
        });
    }

    #[test]
    fn loom_an_overrun_is_seen_after_parking_or_rings() {
        loom::model(|| {
            let memory = Shared::new(4);
            let mut producer = Producer::new(memory.clone(), 8);
            let mut consumer = Consumer::new(memory, 8);
            let sender = loom::thread::spawn(move || producer.note_overrun());
            let asleep = consumer.park().unwrap();
            let seen = consumer.take_overrun();
            let rang = sender.join().unwrap();
            assert!(!asleep || seen || rang, "an overrun nobody hears of");
        });
    }
}
