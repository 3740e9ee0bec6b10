use super::*;
use std::sync::Mutex;
use trunkline_link::pool::{Extent, Pool, duplicate_file};
use trunkline_sn3::extent::Appender;
use trunkline_sn3::facts::{CallOpen, LegFact, PayloadFact};
use trunkline_sn3::frame::FrameHead;
use trunkline_sn3::{FrameKind, record::PauseRecord};

const ORIGIN_NS: u64 = 7_000_000_000;
const MS: u64 = 1_000_000;

#[derive(Default)]
struct Heard {
    pieces: Mutex<[Vec<i16>; 2]>,
    done: Mutex<Vec<String>>,
}

impl Output for Heard {
    fn wants(&self, _call_id: &str) -> bool {
        true
    }

    fn pcm(&self, _call_id: &Arc<str>, channel: RecordingChannel, samples: &[i16]) {
        assert_eq!(samples.len(), 160, "20 ms");
        self.pieces.lock().unwrap()[channel as usize].extend_from_slice(samples);
    }

    fn done(&self, call_id: &str) {
        self.done.lock().unwrap().push(call_id.to_owned());
    }
}

impl Heard {
    /// Milliseconds that were heard of each channel.
    fn lengths_ms(&self) -> [usize; 2] {
        self.pieces
            .lock()
            .unwrap()
            .each_ref()
            .map(|all| all.len() / 8)
    }

    /// Whether a channel sounds at a moment.
    fn sounds(&self, channel: usize, at_ms: usize) -> bool {
        self.pieces.lock().unwrap()[channel][at_ms * 8 + 80] != 0
    }
}

/// Writes a recording's extents as a worker does.
struct Capture {
    tokens: Vec<Extent>,
    used: Vec<Extent>,
    appender: Option<Appender>,
    ordinal: u32,
}

impl Capture {
    fn new() -> (Self, Arc<PoolReader>) {
        let (pool, tokens) = Pool::create(8).unwrap();
        let reader = PoolReader::open(duplicate_file(&pool).unwrap()).unwrap();
        let capture = Self {
            tokens,
            used: Vec::new(),
            appender: None,
            ordinal: 0,
        };
        (capture, Arc::new(reader))
    }

    fn next_extent(&mut self) {
        let mut extent = self.tokens.pop().unwrap();
        extent.open(0, 5, self.ordinal, ORIGIN_NS);
        let bytes = extent.bytes_mut();
        self.appender = Some(Appender::open(bytes, 5, self.ordinal, ORIGIN_NS));
        self.ordinal += 1;
        self.used.push(extent);
    }

    /// The extent went to the disk.
    fn release(&mut self) {
        let extent = self.used.last_mut().unwrap();
        trunkline_sn3::extent::clear(extent.bytes_mut());
        extent.set_free();
        self.appender = None;
    }

    fn frame(&mut self, head: &FrameHead, payload: &[u8]) {
        if self.appender.is_none() {
            self.next_extent();
        }
        if self.append(head, payload).is_err() {
            self.used.last_mut().unwrap().set_full();
            self.next_extent();
            self.append(head, payload).unwrap();
        }
    }

    fn append(&mut self, head: &FrameHead, payload: &[u8]) -> Result<(), ()> {
        let appender = self.appender.as_mut().unwrap();
        let extent = self.used.last_mut().unwrap();
        let appended = appender.append(extent.bytes_mut(), head, payload);
        extent.publish(appender.used() as usize);
        appended.map(drop).map_err(drop)
    }

    fn open_fact(&mut self) {
        let payload = |pt, codec: &str| PayloadFact {
            pt,
            codec: codec.to_owned(),
            clock_hz: 8000,
            channels: 1,
            fmtp: String::new(),
        };
        let leg = |side| LegFact {
            side,
            kind: "audio".to_owned(),
            payloads: vec![payload(0, "PCMU"), payload(101, "telephone-event")],
            ..LegFact::default()
        };
        let open = CallOpen {
            legs: vec![leg(0), leg(1)],
            ..CallOpen::default()
        };
        let text = serde_json::to_vec(&open).unwrap();
        self.frame(&FrameHead::note(FrameKind::CallOpen, 0), &text);
    }

    /// 20 ms of a loud sound; `number` gives sequence number and timestamp.
    fn packet(&mut self, side: u8, pt: u8, number: u16, at_ms: u64) {
        let head = FrameHead {
            kind: FrameKind::Rtp,
            side,
            ssrc: 40 + u32::from(side),
            pt,
            seq: number,
            rtp_ts: u32::from(number) * 160,
            wall_ns: at_ms * MS,
            ..FrameHead::note(FrameKind::Rtp, 0)
        };
        self.frame(&head, &[0x00; 160]);
    }
}

fn tapes(pool: Arc<PoolReader>, from_ms: u64) -> Tapes {
    let mut tapes = Tapes::default();
    tapes.take(Order::Pool(pool));
    tapes.take(Order::Begin(Begin {
        number: 5,
        call_id: "in@host".into(),
        rate_hz: 8000,
        from_mono_ns: ORIGIN_NS + from_ms * MS,
    }));
    tapes
}

/// Looks each 60 ms until that moment of the recording.
fn run(tapes: &mut Tapes, heard: &Heard, from_ms: u64, to_ms: u64) {
    for at_ms in (from_ms..=to_ms).step_by(60) {
        tapes.tick(ORIGIN_NS + at_ms * MS, heard);
    }
}

#[test]
fn both_channels_follow_elapsed_time_whatever_came() {
    let (mut capture, pool) = Capture::new();
    let (heard, mut tapes) = (Heard::default(), tapes(pool, 0));
    capture.open_fact();
    for number in 0..100_u16 {
        let at_ms = u64::from(number) * 20;
        // The caller's packets 10 to 19 are lost; 30 is overtaken by two others; the callee is silent
        // but for its keys.
        if !(10..20).contains(&number) && number != 30 {
            capture.packet(0, 0, number, at_ms + 5);
        }
        if number == 32 {
            capture.packet(0, 0, 30, at_ms + 6);
        }
        capture.packet(1, 101, number, at_ms);
        if number % 25 == 24 {
            capture.release();
        }
        tapes.tick(ORIGIN_NS + at_ms * MS, &heard);
    }
    run(&mut tapes, &heard, 2000, 2300);
    let lengths = heard.lengths_ms();
    assert_eq!(lengths[0], lengths[1]);
    assert!((2000..2100).contains(&lengths[0]), "{lengths:?}");
    for number in 0..100 {
        let lost = (10..20).contains(&number);
        assert_eq!(heard.sounds(0, number * 20), !lost, "packet {number}");
        assert!(!heard.sounds(1, number * 20), "packet {number}");
    }
}

#[test]
fn a_pause_is_left_out_of_both_channels() {
    let (mut capture, pool) = Capture::new();
    let (heard, mut tapes) = (Heard::default(), tapes(pool, 0));
    capture.open_fact();
    for number in 0..50_u16 {
        capture.packet(0, 0, number, u64::from(number) * 20);
    }
    let by = PauseRecord { by: 1 }.encode();
    capture.frame(&FrameHead::note(FrameKind::Pause, 1000 * MS), &by);
    run(&mut tapes, &heard, 0, 2900);
    assert_eq!(heard.lengths_ms(), [1000, 1000], "nothing while paused");
    capture.frame(&FrameHead::note(FrameKind::Resume, 3000 * MS), &by);
    for number in 150..200_u16 {
        capture.packet(0, 0, number, u64::from(number) * 20);
    }
    tapes.take(Order::End {
        number: 5,
        at_mono_ns: ORIGIN_NS + 4000 * MS,
    });
    run(&mut tapes, &heard, 3000, 4400);
    assert_eq!(heard.lengths_ms(), [2000, 2000], "nothing after the end");
    assert!((0..100).all(|number| heard.sounds(0, number * 20)));
    assert_eq!(*heard.done.lock().unwrap(), ["in@host"]);
    assert!(tapes.is_empty());
}

#[test]
fn early_media_is_left_out() {
    let (mut capture, pool) = Capture::new();
    let (heard, mut tapes) = (Heard::default(), tapes(pool, 600));
    capture.open_fact();
    for number in 0..60_u16 {
        capture.packet(1, 0, number, u64::from(number) * 20);
    }
    tapes.take(Order::End {
        number: 5,
        at_mono_ns: ORIGIN_NS + 1200 * MS,
    });
    run(&mut tapes, &heard, 0, 1500);
    assert_eq!(heard.lengths_ms(), [600, 600]);
    assert!((0..30).all(|number| heard.sounds(1, number * 20)));
}

#[test]
fn a_dead_dataplane_is_silence_until_the_next_one() {
    let (mut capture, pool) = Capture::new();
    let (heard, mut tapes) = (Heard::default(), tapes(pool, 0));
    capture.open_fact();
    for number in 0..25_u16 {
        capture.packet(0, 0, number, u64::from(number) * 20);
    }
    run(&mut tapes, &heard, 0, 1000);
    let (mut next, pool) = Capture::new();
    tapes.take(Order::Pool(pool));
    next.ordinal = 4;
    next.open_fact();
    for number in 75..100_u16 {
        next.packet(0, 0, number, u64::from(number) * 20);
    }
    run(&mut tapes, &heard, 1060, 2260);
    for number in 0..100 {
        let gone = (25..75).contains(&number);
        assert_eq!(heard.sounds(0, number * 20), !gone, "packet {number}");
    }
}
