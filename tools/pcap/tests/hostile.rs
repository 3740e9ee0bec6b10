//! Captures and SIP that nobody sent: seeded mutations of good ones, and plain garbage. Nothing
//! panics, and what is found stays within what was there.

use trunkline_pcap::{Calls, CaptureFile, Segment, Streams, find_calls};

/// The same numbers on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let at = self.below(bytes.len());
        let end = (at + self.below(300)).min(bytes.len());
        match self.below(7) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.below(256) as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..end)),
            4 => bytes[at..end].fill([0, 0xFF][self.below(2)]),
            5 => {
                // A length of gigabytes, where there may be one.
                let at = at / 4 * 4;
                if let Some(word) = bytes.get_mut(at..at + 4) {
                    word.copy_from_slice(&[0xFF, 0xFF, 0xFF, 0x7F]);
                }
            }
            _ => {
                let copy = bytes[at..end].to_vec();
                let to = self.below(bytes.len());
                bytes.splice(to..to, copy);
            }
        }
    }
}

const INVITE: &str = "INVITE sip:b@192.0.2.2 SIP/2.0\r\nCall-ID: x\r\nCSeq: 1 INVITE\r\n\
    From: \"A\" <sip:a@192.0.2.1>;tag=1\r\nTo: <sip:b@192.0.2.2>\r\nContent-Length: 155\r\n\r\n\
    v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n\
    m=audio 4000 RTP/AVP 0 96\r\na=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\n\
    a=rtcp:4001\r\n";

/// UDP, or TCP, in IPv4 or IPv6 on Ethernet, in fragments of 64 bytes where wanted.
fn frames(payload: &[u8], v6: bool, tcp: bool, fragmented: bool) -> Vec<Vec<u8>> {
    let mut transport = 5_060_u16.to_be_bytes().to_vec();
    transport.extend(5_060_u16.to_be_bytes());
    if tcp {
        transport.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 0x18, 0, 0, 0, 0, 0, 0]);
    } else {
        transport.extend((8 + payload.len() as u16).to_be_bytes());
        transport.extend([0, 0]);
    }
    transport.extend(payload);
    let protocol = if tcp { 6 } else { 17 };
    let size = if fragmented { 64 } else { transport.len() };
    let count = transport.len().div_ceil(size);
    let part = |(index, part): (usize, &[u8])| {
        let more = index + 1 < count;
        let mut frame = vec![2; 12];
        let offset = (index * size) as u16;
        if v6 {
            frame.extend([0x86, 0xDD, 0x60, 0, 0, 0]);
            let extra = if fragmented { 8 } else { 0 };
            frame.extend((part.len() as u16 + extra).to_be_bytes());
            frame.extend([if fragmented { 44 } else { protocol }, 64]);
            frame.extend([1; 16]);
            frame.extend([2; 16]);
            if fragmented {
                frame.extend([protocol, 0]);
                frame.extend((offset | u16::from(more)).to_be_bytes());
                frame.extend([0, 0, 0, 9]);
            }
        } else {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((20 + part.len() as u16).to_be_bytes());
            frame.extend([0, 9]);
            frame.extend(((offset / 8) | (u16::from(more) << 13)).to_be_bytes());
            frame.extend([64, protocol, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        }
        frame.extend(part);
        frame
    };
    transport.chunks(size).enumerate().map(part).collect()
}

fn pcap(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = 0xA1B2_C3D4_u32.to_le_bytes().to_vec();
    file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0]);
    for (second, frame) in (1_u32..).zip(frames) {
        let length = frame.len() as u32;
        for word in [second, 0, length, length] {
            file.extend(word.to_le_bytes());
        }
        file.extend(frame);
    }
    file
}

fn pcapng(frames: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut block = |kind: u32, body: &[u8]| {
        let padded = body.len().next_multiple_of(4);
        let length = padded as u32 + 12;
        file.extend(kind.to_le_bytes());
        file.extend(length.to_le_bytes());
        file.extend(body);
        file.extend(vec![0; padded - body.len()]);
        file.extend(length.to_le_bytes());
    };
    let mut section = 0x1A2B_3C4D_u32.to_le_bytes().to_vec();
    section.extend([1, 0, 0, 0]);
    section.extend([0xFF; 8]);
    block(0x0A0D_0D0A, &section);
    // Ethernet; microseconds, an offset of a second.
    let options = [9, 0, 1, 0, 6, 0, 0, 0, 14, 0, 8, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    block(1, &[&[1, 0, 0, 0, 0, 0, 4, 0][..], &options].concat());
    for frame in frames {
        let mut body = vec![0; 12];
        body.extend((frame.len() as u32).to_le_bytes());
        body.extend((frame.len() as u32).to_le_bytes());
        body.extend(frame);
        block(6, &body);
    }
    file
}

fn sources() -> Vec<Vec<u8>> {
    let mut sources = Vec::new();
    for (v6, tcp, fragmented) in [
        (false, false, false),
        (true, false, true),
        (false, true, false),
        (true, true, true),
        (false, false, true),
    ] {
        let frames = frames(INVITE.as_bytes(), v6, tcp, fragmented);
        sources.push(pcap(&frames));
        sources.push(pcapng(&frames));
    }
    sources
}

#[test]
fn good_captures_give_their_call() {
    for (index, source) in sources().iter().enumerate() {
        let calls = find_calls(source).unwrap();
        assert_eq!(calls.len(), 1, "source {index}");
        assert_eq!(
            (calls[0].caller.as_str(), calls[0].callee.as_str()),
            ("a", "b")
        );
        let media = &calls[0].descriptions[0].media[0];
        assert_eq!(media.endpoint, "192.0.2.1:4000".parse().ok());
        assert_eq!(media.rtcp, "192.0.2.1:4001".parse().ok());
        assert_eq!(media.payloads[1].codec, "opus");
    }
}

#[test]
fn mutated_captures_are_survived() {
    let mut dice = Dice(2_026);
    for source in sources() {
        for _ in 0..2_000 {
            let mut broken = source.clone();
            for _ in 0..=dice.below(6) {
                dice.mutate(&mut broken);
            }
            for call in find_calls(&broken).into_iter().flatten() {
                let _ = call.legs_at(u64::MAX);
            }
            let records = CaptureFile::new(&broken).into_iter().flatten();
            let bytes: usize = records.map(|record| record.bytes.len()).sum();
            assert!(bytes <= broken.len());
        }
    }
}

#[test]
fn garbage_of_any_length_is_survived() {
    let mut dice = Dice(7);
    for magic in [[0xD4, 0xC3, 0xB2, 0xA1], [0x0A, 0x0D, 0x0D, 0x0A], [0; 4]] {
        for length in 0..600 {
            let mut bytes = magic.to_vec();
            bytes.extend((0..length).map(|_| (dice.below(256) & dice.below(256)) as u8));
            let found = find_calls(&bytes);
            assert!(found.is_none_or(|calls| calls.is_empty()));
        }
    }
}

#[test]
fn mutated_signalling_is_survived_alone_and_in_a_stream() {
    let mut dice = Dice(5_060);
    for _ in 0..5_000 {
        let mut broken = INVITE.as_bytes().to_vec();
        for _ in 0..=dice.below(6) {
            dice.mutate(&mut broken);
        }
        let mut calls = Calls::default();
        calls.take(1, &broken);
        let mut streams = Streams::default();
        let mut sequence = dice.below(1 << 32) as u32;
        for part in broken.chunks(1 + dice.below(200)) {
            let segment = Segment {
                utc_ns: 2,
                source: ([192, 0, 2, 1], 5_060).into(),
                destination: ([192, 0, 2, 2], 5_060).into(),
                sequence: sequence.wrapping_add(dice.below(3) as u32),
                begins: dice.below(50) == 0,
                ends: dice.below(50) == 0,
                payload: part.into(),
            };
            streams.take(&segment, |message| {
                assert!(message.len() <= broken.len());
                calls.take(2, message);
            });
            sequence = sequence.wrapping_add(part.len() as u32);
        }
        assert!(calls.list.len() <= 8);
    }
}

#[test]
fn reading_goes_on_behind_a_damage_that_is_named() {
    let frames: Vec<Vec<u8>> = frames(b"hello", false, false, false)
        .into_iter()
        .cycle()
        .take(30)
        .collect();
    for (file, word, header) in [(pcap(&frames), 8, 16), (pcapng(&frames), 4, 28)] {
        let starts: Vec<usize> = CaptureFile::new(&file)
            .unwrap()
            .map(|record| record.bytes.as_ptr() as usize - file.as_ptr() as usize)
            .collect();
        let at = starts[10] - header;
        for length in [u32::MAX, 1 << 30] {
            let mut bad = file.clone();
            bad[at + word..at + word + 4].copy_from_slice(&length.to_le_bytes());
            let mut reader = CaptureFile::new(&bad).unwrap();
            assert_eq!(reader.by_ref().count(), starts.len() - 1);
            assert_eq!(reader.damage().map(|(offset, _)| offset), Some(at as u64));
        }
        let mut bad = file.clone();
        bad.splice(at..at, [0xEE; 777]);
        let mut reader = CaptureFile::new(&bad).unwrap();
        assert_eq!(reader.by_ref().count(), starts.len());
        assert_eq!(reader.damage().map(|(offset, _)| offset), Some(at as u64));
    }
}

#[test]
fn frames_that_were_not_captured_whole_are_counted() {
    let frames = frames(b"hello", false, false, false);
    let mut file = pcap(&frames);
    let whole = u32::from_le_bytes(file[36..40].try_into().unwrap());
    file[36..40].copy_from_slice(&(whole + 100).to_le_bytes());
    let mut reader = CaptureFile::new(&file).unwrap();
    assert_eq!(reader.by_ref().count(), frames.len());
    assert_eq!(reader.shortened(), Some((24, 1)));
}
