//! Parties that do not understand `a=record` hear that they are recorded: an announcement, or a tone that
//! comes again and again, for as long as something records. What they heard is kept as proof.
//!
//! ```text
//! each change of a call ─ settle ─ sound: who is to hear what? ─► SourceLoad (once a dataplane), PlayStart
//! recording paused, stopped, call ends ─ hush ─► PlayStop ─► Played, before the recording's own answer
//! Played ─ on_played ─► receipt, fact
//! ```

use std::sync::Arc;

use trunkline_config::{Indication, IndicationMode, Sound};
use trunkline_link::limits::VOICES_MAX;
use trunkline_link::message::{CodecId, Command, FailReason, PlayMode, PlayStart, PlayVoice, Side};
use trunkline_sdp::RecordState;
use trunkline_sinks::Timestamp;
use trunkline_sinks::object::{self, IndicationKind};

use super::B2bua;
use super::awareness::{is_aware, role};
use crate::call::recording::Phase as Capture;
use crate::call::sounding::Sounding;
use crate::call::{Call, Phase, Step};
use crate::clock::Moment;
use crate::sounds::{Prepared, Voices};

/// Code of the alarm that somebody hears nothing, beside those of the link.
const NOT_PLAYED: u16 = 1001;
/// A play that was refused so often is not asked for again.
const REFUSALS_MAX: u32 = 2;
/// How many times that a tone came are kept over a restart at once.
const TIMES_A_SAVE: u32 = 4;

/// What was heard, as the dataplane tells it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heard {
    pub(super) to: Side,
    pub(super) play: u64,
    pub(super) from_mono_ns: u64,
    pub(super) to_mono_ns: u64,
    pub(super) packets: u32,
    pub(super) played_ms: u32,
    pub(super) whole: bool,
}

impl B2bua {
    /// A sound of a route is ready to be played, or will never be.
    pub fn prepared(&mut self, sound: &Sound, voices: Result<Voices, String>, now: &Moment) {
        match voices {
            Ok(voices) => drop(self.sounds.insert(sound.clone(), voices)),
            Err(error) => {
                tracing::error!(%error, "an announcement cannot be played");
                self.not_played(now);
                return;
            }
        }
        let waiting: Vec<u64> = self
            .calls
            .values()
            .filter(|call| {
                call.route
                    .indication
                    .as_ref()
                    .is_some_and(|one| one.sound == *sound)
            })
            .map(|call| call.key)
            .collect();
        for key in waiting {
            self.with_call(key, now, |_, _| {});
        }
    }

    /// Raised once; what it tells of is the configuration's, so that only a restart clears it.
    fn not_played(&mut self, now: &Moment) {
        let message = "parties are recorded that hear nothing of it";
        self.alarm(NOT_PLAYED, "indication_not_played", message, true, now);
    }

    /// A call has changed: who is to hear of its recording does, and nobody else.
    pub(super) fn sound(&mut self, call: &mut Call, now: &Moment) {
        let route = Arc::clone(&call.route);
        let Some(indication) = &route.indication else {
            return;
        };
        if !call.is_shown() || !self.dataplane_up || call.closed {
            return;
        }
        let about = self.recording_now(call);
        for side in Side::BOTH {
            let deaf = !indication.to[side as usize] || is_aware(call, side);
            match about.filter(|_| !deaf) {
                Some(about) => self.play(call, side, indication, about, now),
                None => self.hush(call, side),
            }
        }
    }

    /// The recording that goes on now, 0 for one by others alone.
    fn recording_now(&self, call: &Call) -> Option<u64> {
        let installs = |step: &Step| matches!(step, Step::Reinstall | Step::Restart { .. });
        if call.phase != Phase::Answered || call.batches.iter().any(|one| installs(&one.then)) {
            return None;
        }
        let own = call.recordings.last().filter(|one| one.is_live());
        let changes = |step: &Step| matches!(step, Step::RecordingChanged { .. });
        let captures = own.is_some_and(|one| one.phase == Capture::Running)
            && !call.batches.iter().any(|one| changes(&one.then));
        let sent = self.siprec.records(call.key) == RecordState::On;
        (captures || sent).then_some(own.map_or(0, |one| one.number))
    }

    fn play(
        &mut self,
        call: &mut Call,
        side: Side,
        indication: &Indication,
        about: u64,
        now: &Moment,
    ) {
        let Some(voices) = self.sounds.get(&indication.sound).cloned() else {
            return;
        };
        let sounding = &mut call.sounding[side as usize];
        if sounding.play == 0 || sounding.about != about {
            *sounding = Sounding::of(about);
        }
        if sounding.heard || sounding.refusals >= REFUSALS_MAX {
            return;
        }
        let Some(line) = call.negotiation.spoken_to(side) else {
            return;
        };
        let chosen = chosen(&voices, &line.codecs);
        if chosen.is_empty() {
            self.hush(call, side);
            return self.note_nothing(call, side, indication, now);
        }
        let sounding = &mut call.sounding[side as usize];
        let start = PlayStart {
            session: call.key,
            media: line.media,
            to: side,
            play: sounding.play,
            mode: match indication.mode {
                IndicationMode::Insert => PlayMode::Insert,
                IndicationMode::Mix => PlayMode::Mix,
            },
            every_ms: match &indication.sound {
                Sound::Tone(tone) => tone.every_s * 1_000,
                Sound::Announcement(_) => 0,
            },
            packet_ms: line.packet_ms,
            ssrc: sounding.ssrc,
            voices: chosen
                .iter()
                .map(|(prepared, pt)| PlayVoice {
                    source: prepared.source,
                    pt: *pt,
                })
                .collect(),
        };
        if sounding.told.as_deref() == Some(&start) {
            return;
        }
        sounding.told = Some(Box::new(start.clone()));
        for (prepared, _) in chosen {
            if self.loaded.insert(prepared.source) {
                for piece in prepared.pieces() {
                    self.command(piece);
                }
            }
        }
        let command = Command::PlayStart(start);
        self.batch(call, vec![command], Step::Sounding { side }, now);
    }

    /// The dataplane's answer to a play.
    pub(super) fn sounding_answered(
        &mut self,
        call: &mut Call,
        side: Side,
        failed: Option<FailReason>,
        now: &Moment,
    ) {
        let sounding = &mut call.sounding[side as usize];
        let Some(reason) = failed else { return };
        let (refusals, told) = (sounding.refusals + 1, sounding.told.take());
        sounding.refusals = refusals;
        if !self.dataplane_up {
            // The next one is asked anew.
            return sounding.forget_told();
        }
        // It may have forgotten a sound that nobody played for long.
        for voice in told.iter().flat_map(|told| &told.voices) {
            self.loaded.remove(&voice.source);
        }
        if refusals >= REFUSALS_MAX {
            tracing::warn!(call = %call.object.id, ?reason, "a party does not hear of its recording");
            self.not_played(now);
        }
    }

    /// A side hears nothing more, before whatever follows takes effect.
    fn hush(&mut self, call: &mut Call, side: Side) {
        let Some(told) = call.sounding[side as usize].told.take() else {
            return;
        };
        self.command(Command::PlayStop {
            session: call.key,
            media: told.media,
            to: side,
        });
    }

    /// Capture is about to end or to rest. Where others record, who hears of that goes on to.
    pub(super) fn hush_all(&mut self, call: &mut Call) {
        if self.siprec.records(call.key) != RecordState::On || call.phase != Phase::Answered {
            for side in Side::BOTH {
                self.hush(call, side);
            }
        }
    }

    /// A side heard what is played to it.
    pub(super) fn on_played(&mut self, call: &mut Call, heard: Heard, now: &Moment) {
        let route = Arc::clone(&call.route);
        let Some(indication) = &route.indication else {
            return;
        };
        let (kind, value) = described(&indication.sound);
        let sounding = &mut call.sounding[heard.to as usize];
        if sounding.play == heard.play && heard.whole && kind == IndicationKind::Announcement {
            sounding.heard = true;
            sounding.told = None;
        }
        let ago = |mono_ns: u64| {
            let ms = now.mono_ns.saturating_sub(mono_ns) / 1_000_000;
            Timestamp(now.utc.0 - i64::try_from(ms).unwrap_or(0))
        };
        let told = object::Indication {
            side: role(heard.to),
            kind,
            value,
            at: ago(heard.from_mono_ns),
            refused: None,
            duration_ms: Some(u64::from(heard.played_ms)),
            frames: Some(u64::from(heard.packets)),
            times: Some(1),
            until: Some(ago(heard.to_mono_ns)),
        };
        let since = sounding.since.filter(|_| sounding.play == heard.play);
        if kind == IndicationKind::Tone {
            if since.is_some_and(|since| self.count_tone(call, since, &told)) {
                return;
            }
            call.sounding[heard.to as usize].since = Some(told.at);
        }
        self.note_indication(call, told);
    }

    /// A tone that came again is counted to the first, of this moment; false when there is none.
    fn count_tone(&mut self, call: &mut Call, since: Timestamp, told: &object::Indication) -> bool {
        let open = |one: &&mut crate::call::recording::Recording| one.phase != Capture::Done;
        let recording = call.recordings.iter_mut().rev().find(open);
        let known = match recording {
            Some(recording) => &mut recording.receipt_mut().indications,
            None => &mut call.object.indications,
        };
        let same = |one: &&mut object::Indication| {
            (one.side, one.kind, one.at) == (told.side, told.kind, since)
        };
        let Some(first) = known.iter_mut().rev().find(same) else {
            return false;
        };
        let times = first.times.unwrap_or(1) + 1;
        first.times = Some(times);
        first.until = told.until;
        let sum =
            |one: Option<u64>, other: Option<u64>| Some(one.unwrap_or(0) + other.unwrap_or(0));
        first.duration_ms = sum(first.duration_ms, told.duration_ms);
        first.frames = sum(first.frames, told.frames);
        if times.is_multiple_of(TIMES_A_SAVE) {
            self.save(call);
        }
        true
    }

    /// Nothing can be played to a side: the receipt says so, once.
    fn note_nothing(&mut self, call: &mut Call, side: Side, indication: &Indication, now: &Moment) {
        let sounding = &mut call.sounding[side as usize];
        if std::mem::replace(&mut sounding.noted, true) {
            return;
        }
        let codec = call.negotiation.agreed_codec(side.other());
        let codec = codec.unwrap_or_else(|| "unknown".to_owned());
        tracing::warn!(call = %call.object.id, %codec, "a party hears nothing of its recording: no sound in its codec");
        self.not_played(now);
        let (kind, _) = described(&indication.sound);
        let told = object::Indication {
            side: role(side),
            kind,
            value: format!("not played: no sound in {codec}"),
            at: now.utc,
            refused: None,
            duration_ms: Some(0),
            frames: Some(0),
            times: Some(0),
            until: None,
        };
        self.note_indication(call, told);
    }
}

/// Sounds in the codecs of a side, with the payload types by which it takes them.
fn chosen(voices: &Voices, codecs: &[(CodecId, u8)]) -> Vec<(Arc<Prepared>, u8)> {
    let found = codecs.iter().filter_map(|(codec, pt)| {
        let voice = voices.iter().find(|one| one.codec == *codec)?;
        Some((Arc::clone(voice), *pt))
    });
    found.take(VOICES_MAX).collect()
}

/// A sound in a receipt.
fn described(sound: &Sound) -> (IndicationKind, String) {
    match sound {
        Sound::Tone(tone) => (IndicationKind::Tone, format!("{} Hz", tone.hz)),
        Sound::Announcement(path) => {
            let name = path.file_name().unwrap_or_default();
            (
                IndicationKind::Announcement,
                name.to_string_lossy().into_owned(),
            )
        }
    }
}
