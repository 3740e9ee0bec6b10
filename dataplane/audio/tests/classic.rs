//! Classic blobs: no facts, in SN1 and SN2 not even capture times.

mod support;

use support::*;

/// SN1 or SN2 of the packets in the order given.
fn older(magic: &[u8; 3], packets: &[Packet]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    for packet in packets {
        bytes.push(packet.dir);
        if magic == b"SN2" {
            bytes.extend(packet.seq.to_le_bytes());
            bytes.extend(packet.ts.to_le_bytes());
        }
        bytes.extend((packet.payload.len() as u16).to_le_bytes());
        bytes.extend(&packet.payload);
    }
    bytes
}

fn interleaved(caller: &[i16], callee: &[i16]) -> Vec<Packet> {
    let mut packets = pcmu(0, caller, 0);
    packets.extend(pcmu(1, callee, 3_000 * MS));
    packets.sort_by_key(|packet| packet.wall_ns);
    packets
}

#[test]
fn sn1_plays_each_leg_from_its_first_frame() {
    let (caller, callee) = (speech(8_000, 5.0, 0), speech(8_000, 2.0, 1));
    let mut packets = interleaved(&caller, &callee);
    let key = trunkline_codec::telephone_event::EventReport {
        event: 1,
        end: false,
        volume: 10,
        duration: 160,
    };
    packets.insert(
        30,
        Packet {
            payload: key.encode().to_vec(),
            ..packets[0].clone()
        },
    );
    let sound = render(older(b"SN1", &packets));
    assert_eq!(sound.left, through_mu_law(&caller));
    assert_eq!(sound.right[..16_000], through_mu_law(&callee));
    assert_eq!(peak(&sound.right[16_000..]), 0);
}

#[test]
fn sn2_keeps_silence_order_and_sources() {
    let (caller, callee) = (speech(8_000, 5.0, 0), speech(8_000, 2.0, 1));
    let mut packets = interleaved(&caller, &callee);
    packets.swap(40, 41);
    for packet in packets
        .iter_mut()
        .filter(|packet| packet.dir == 0 && packet.seq >= 1_100)
    {
        // Two seconds of silence that the timestamps count.
        packet.ts += 16_000;
    }
    for packet in packets
        .iter_mut()
        .filter(|packet| packet.dir == 1 && packet.seq >= 1_050)
    {
        // Another source goes on where the first one ended.
        packet.seq = packet.seq.wrapping_add(20_000);
        packet.ts = packet.ts.wrapping_add(1_000_000_000);
    }
    let sound = render(older(b"SN2", &packets));
    let (left, right) = (through_mu_law(&caller), through_mu_law(&callee));
    assert_eq!(sound.left[..16_000], left[..16_000]);
    assert_eq!(peak(&sound.left[16_000..32_000]), 0);
    assert_eq!(sound.left[32_000..], left[16_000..]);
    assert_eq!(sound.right[..16_000], right);
}

#[test]
fn speech_from_a_machine_keeps_its_pauses() {
    // Timestamps go on as if nothing had happened; only capture times know the pauses.
    let spoken = speech(8_000, 9.0, 0);
    let wanted = through_mu_law(&spoken);
    let mut packets = pcmu(1, &spoken, 0);
    for (n, packet) in packets.iter_mut().enumerate() {
        packet.wall_ns += [0, 1_500, 1_900][n / 150] * MS;
    }
    let sound = render(blob(packets));
    for (part, shift_ms) in [0, 1_500, 1_900].into_iter().enumerate() {
        let piece = part * 24_000..(part + 1) * 24_000;
        let start = piece.start + shift_ms * 8;
        assert_eq!(
            sound.right[start..start + 24_000],
            wanted[piece],
            "part {part}"
        );
    }
    assert_eq!(peak(&sound.right[24_000..36_000]), 0);
    assert_eq!(sound.right.len(), 72_000 + 15_200);
}

#[test]
fn silence_that_is_not_sent_stays_silence() {
    // Discontinuous transmission without comfort noise: numbering continuous, timestamps count.
    let spoken = speech(8_000, 6.0, 0);
    let mut packets = pcmu(0, &spoken, 0);
    packets.drain(100..180);
    for packet in &mut packets[100..] {
        packet.seq -= 80;
    }
    let sound = render(blob(packets));
    let wanted = through_mu_law(&spoken);
    assert_eq!(sound.left[..16_000], wanted[..16_000]);
    assert_eq!(peak(&sound.left[16_000..28_800]), 0);
    assert_eq!(sound.left[28_800..], wanted[28_800..]);
    assert_eq!(sound.plan.streams()[0].lost, 0);
}

#[test]
fn losses_of_any_kind_leave_the_rest_in_its_place() {
    let spoken = speech(8_000, 12.0, 0);
    let wanted = through_mu_law(&spoken);
    for (percent, burst) in [(1, 1), (5, 1), (10, 3), (20, 1), (20, 10)] {
        let mut dice = Dice(percent * 100 + burst);
        let mut packets = pcmu(0, &spoken, 0);
        let mut left = 0;
        packets.retain(|packet| {
            if left == 0 && dice.below(100 * burst) < percent {
                left = burst;
            }
            left = left.saturating_sub(1);
            left == 0 && !(burst == 1 && dice.below(100) < percent) || packet.seq >= 1_599
        });
        let received: Vec<u16> = packets.iter().map(|packet| packet.seq - 1_000).collect();
        let sound = render(blob(packets));
        assert_eq!(sound.left.len(), wanted.len());
        // Every sample received stays as it is, right up to the losses beside it.
        for &n in &received {
            let packet = usize::from(n) * 160..(usize::from(n) + 1) * 160;
            assert_eq!(
                sound.left[packet.clone()],
                wanted[packet],
                "{percent} % by {burst}: {n}"
            );
        }
    }
}

#[test]
fn noise_in_the_first_arrival_cuts_nothing_off() {
    let spoken = speech(8_000, 4.0, 0);
    let mut packets = pcmu(0, &spoken, 0);
    for packet in &mut packets[1..] {
        packet.wall_ns -= 12 * MS;
    }
    let sound = render(blob(packets));
    assert_eq!(sound.left, through_mu_law(&spoken));
}

#[test]
fn a_burst_that_fills_the_far_ends_buffer_keeps_its_beginning_and_its_place() {
    let spoken = speech(8_000, 5.0, 0);
    for count in [5, 15] {
        let mut sent = pcmu(0, &spoken, 0);
        for (index, packet) in (0_u64..).zip(&mut sent) {
            packet.wall_ns = index.saturating_sub(count) * 20 * MS;
        }
        assert_eq!(render(blob(sent)).left, through_mu_law(&spoken));
    }
}

#[test]
fn what_follows_a_silence_of_all_is_heard_from_its_first_sample() {
    let (caller, callee) = (speech(8_000, 4.0, 0), speech(8_000, 4.0, 1));
    let hold_ns = 2_400_000 * MS;
    let mut packets = pcmu(0, &caller, 0);
    packets.extend(pcmu(1, &callee, 0));
    for packet in packets.iter_mut().filter(|one| one.wall_ns >= 2_000 * MS) {
        packet.wall_ns += hold_ns;
    }
    let sound = render(blob(packets));
    let resumed = 2_402 * 8_000;
    for (heard, spoken) in [(&sound.left, &caller), (&sound.right, &callee)] {
        assert_eq!(heard[..16_000], through_mu_law(&spoken[..16_000]));
        assert_eq!(peak(&heard[16_000..resumed]), 0);
        assert_eq!(heard[resumed..], through_mu_law(&spoken[16_000..]));
    }
}
