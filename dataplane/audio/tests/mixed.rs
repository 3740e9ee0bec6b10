//! Everything at once, by seeds: loss, bursts, duplicates, reordering, stalls, pauses of a machine's
//! speech, sources that change. Each packet that arrived has to be heard where it was sent.

mod support;

use support::*;

/// What a seed does to one side.
struct Trouble {
    loss_percent: u64,
    burst: u64,
    jitter_ms: u64,
    duplicates_percent: u64,
    reordered_percent: u64,
    stall_every: usize,
    pause_every: usize,
    restart_every: usize,
}

impl Trouble {
    fn of(dice: &mut Dice) -> Self {
        let burst = [1, 1, 3, 8][dice.below(4) as usize];
        Self {
            loss_percent: dice.below(21),
            burst,
            jitter_ms: dice.below(30),
            duplicates_percent: [0, 0, 5, 50, 100][dice.below(5) as usize],
            reordered_percent: [0, 0, 5, 20][dice.below(4) as usize],
            stall_every: [0, 0, 200, 450][dice.below(4) as usize],
            pause_every: [0, 0, 160, 400][dice.below(4) as usize],
            restart_every: [0, 0, 0, 700][dice.below(4) as usize],
        }
    }
}

/// A packet that arrived: where its sound belongs.
struct Sent {
    position: usize,
    sound: Vec<i16>,
}

/// Sends `sound` through the trouble; the packets captured and what has to be heard.
fn send(side: u8, sound: &[i16], dice: &mut Dice) -> (Vec<Packet>, Vec<Sent>, Trouble) {
    let trouble = Trouble::of(dice);
    let (mut packets, mut sent) = (Vec::new(), Vec::new());
    let (mut seq, mut ts) = (65_300_u16, 4_294_900_000_u32);
    let (mut pause_ms, mut stalled_until, mut lost_for) = (0_u64, 0_u64, 0_u64);
    for (n, frame) in pcmu(side, sound, 0).into_iter().enumerate() {
        let every = |interval: usize| interval > 0 && n > 0 && n.is_multiple_of(interval);
        if every(trouble.pause_every) {
            pause_ms += 300 + 20 * dice.below(60);
        }
        if every(trouble.restart_every) {
            (seq, ts) = (dice.below(65_536) as u16, dice.below(1 << 32) as u32);
        }
        let sent_ms = n as u64 * 20 + pause_ms;
        if every(trouble.stall_every) {
            stalled_until = sent_ms + 300;
        }
        let mut arrival_us = sent_ms * 1_000;
        if n % 10 != 0 {
            arrival_us += dice.below(trouble.jitter_ms * 1_000 + 1);
        }
        if dice.below(100) < trouble.reordered_percent {
            arrival_us += 45_000;
        }
        arrival_us = arrival_us.max(stalled_until * 1_000 + n as u64 % 20);
        if lost_for == 0 && dice.below(100 * trouble.burst) < trouble.loss_percent {
            lost_for = trouble.burst;
        }
        let edge = n < 2 || n + 2 >= sound.len() / 160;
        let near_change = trouble.pause_every > 0 && n % trouble.pause_every < 2
            || trouble.restart_every > 0 && n % trouble.restart_every < 2;
        let lost = lost_for > 0 && !edge && !near_change;
        lost_for = lost_for.saturating_sub(1);
        let packet = Packet {
            seq,
            ts,
            wall_ns: arrival_us * 1_000,
            ..frame
        };
        (seq, ts) = (seq.wrapping_add(1), ts.wrapping_add(160));
        if lost {
            continue;
        }
        sent.push(Sent {
            position: sent_ms as usize * 8,
            sound: through_mu_law(&sound[n * 160..][..160]),
        });
        if dice.below(100) < trouble.duplicates_percent {
            let mut again = packet.clone();
            again.wall_ns += dice.below(40) * MS;
            packets.push(again);
        }
        packets.push(packet);
    }
    (packets, sent, trouble)
}

#[test]
fn whatever_happens_each_packet_is_heard_where_it_was_sent() {
    for seed in 0..40 {
        let mut dice = Dice(seed * 7_919 + 1);
        let voices = [speech(8_000, 40.0, 0), speech(8_000, 40.0, 1)];
        let mut all = Vec::new();
        let mut sides = Vec::new();
        for (side, sound) in voices.iter().enumerate() {
            let (packets, sent, trouble) = send(side as u8, sound, &mut dice);
            all.extend(packets);
            sides.push((sent, trouble));
        }
        let sound = render(blob(all));
        for (side, (sent, trouble)) in sides.iter().enumerate() {
            let channel = if side == 0 { &sound.left } else { &sound.right };
            let mut misplaced = 0;
            for packet in sent {
                let inner = &packet.sound[40..120];
                // Two milliseconds either way: one of the first packets may have been late.
                let found = (-16_i64..=16).any(|shift| {
                    let start = packet.position as i64 + shift + 40;
                    usize::try_from(start)
                        .is_ok_and(|start| channel.get(start..start + 80) == Some(inner))
                });
                misplaced += usize::from(!found);
            }
            assert!(
                misplaced * 1_000 <= sent.len(),
                "seed {seed}, side {side}: {misplaced} of {} misplaced; loss {} % by {}, jitter {} ms, \
                 duplicates {} %, reordered {} %, stalls {}, pauses {}, restarts {}",
                sent.len(),
                trouble.loss_percent,
                trouble.burst,
                trouble.jitter_ms,
                trouble.duplicates_percent,
                trouble.reordered_percent,
                trouble.stall_every,
                trouble.pause_every,
                trouble.restart_every,
            );
        }
    }
}
