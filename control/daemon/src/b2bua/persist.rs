//! The opaque record of a call that the dataplane keeps for us, so that a restarted control goes on
//! where the last one died.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trunkline_config::{Config, Route};
use trunkline_link::message::{Command, Event, LegUpdate, RecordingPhase, Side, SnapshotSession};
use trunkline_sinks::object;
use trunkline_sip::dialog::{Dialog, SessionTerms, SessionTimer};
use trunkline_sip::message::Uri;
use trunkline_sip::transaction::{FlowId, Transport};

use super::B2bua;
use super::transfer::Transfers;
use crate::call::awareness::Awareness;
use crate::call::media::Media;
use crate::call::negotiation::{Negotiation, Saved as SavedNegotiation};
use crate::call::recording::{Phase as Capture, Recording};
use crate::call::sounding::Sounding;
use crate::call::transfer::Party;
use crate::call::{Call, Leg, Phase};
use crate::clock::Moment;
use crate::packing::{pack, unpack};

/// Version of the record's layout; another one is not read.
const VERSION: u8 = 4;
/// Requests that a dialog may have sent since its call was saved last: their numbers are not used again.
pub(super) const SKIPPED_REQUESTS: u32 = 100;

#[derive(Serialize, Deserialize)]
pub(super) struct SavedLeg {
    dialog: Dialog,
    transport: Transport,
    flow: Option<FlowId>,
    local: std::net::SocketAddr,
    remote: std::net::SocketAddr,
    contact: Uri,
    over: bool,
    session: Option<SessionTerms>,
    takes_update: bool,
    #[serde(default = "yes")]
    takes_info: bool,
    #[serde(default)]
    aware: bool,
}

fn yes() -> bool {
    true
}

#[derive(Serialize, Deserialize)]
struct SavedCall {
    object: object::Call,
    route: String,
    legs: [SavedLeg; 2],
    negotiation: SavedNegotiation,
    media_timeout_ms: u32,
    recordings: Vec<Recording>,
    answered_mono_ns: u64,
    held_since_ns: Option<u64>,
    holds: Vec<(u64, u64)>,
    ending: bool,
    parties: Vec<Party>,
    shown: [usize; 2],
    private: [bool; 2],
    #[serde(default)]
    passes_recording: bool,
    #[serde(default)]
    awareness: Awareness,
    #[serde(default)]
    sounding: [Sounding; 2],
    #[serde(default, skip_serializing_if = "Transfers::is_empty")]
    transfers: Transfers,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    dismissed: BTreeMap<String, bool>,
}

impl B2bua {
    /// Has the dataplane keep what a restarted control would need. Only confirmed calls are kept:
    /// what is still being set up ends with us.
    pub(super) fn save(&mut self, call: &Call) {
        if !call.was_answered() || call.closed {
            return;
        }
        if call.recording_session.is_some() {
            return self.save_recording_session(call);
        }
        let Some(mut saved) = saved_call(call) else {
            return;
        };
        saved.dismissed = self.siprec.dismissed(call.key);
        let Some(record) = pack(VERSION, &saved) else {
            tracing::warn!(call = %call.object.id, "the call's record is too large: it would not survive a restart");
            return;
        };
        self.command(Command::SessionRecord {
            session: call.key,
            record,
        });
    }

    /// Makes a call of a session that an earlier control left behind.
    pub(super) fn restore(&mut self, session: SnapshotSession, now: &Moment) -> bool {
        if super::srs::is_record(&session.record) {
            return self.restore_recording_session(session, now);
        }
        let Some(saved) = unpack::<SavedCall>(VERSION, &session.record) else {
            return false;
        };
        let key = session.session;
        let Some(route) = route_of(&self.config, &saved.route) else {
            return false;
        };
        let mut media = Media::new(key, session.interface, saved.media_timeout_ms);
        media.open = session.media;
        let addresses = session.interface.map(|index| {
            self.config
                .interfaces
                .get(usize::from(index))
                .map_or(std::net::Ipv4Addr::LOCALHOST.into(), |one| one.advertised())
        });
        let offerer = saved.negotiation.offerer();
        let Some(negotiation) = Negotiation::load(saved.negotiation, &media, addresses) else {
            return false;
        };
        for update in remembered(&negotiation, key, &saved.legs, self.config.sip.nat) {
            // Told to the former control's dataplane already: only remembered here.
            let _ = media.leg_command(update);
        }
        let legs = saved.legs.map(|leg| leg.restored(now));
        for (side, leg) in Side::BOTH.into_iter().zip(&legs) {
            self.dialogs
                .extend(leg.dialog.as_ref().map(|dialog| (dialog.id(), (key, side))));
        }
        self.ids.insert(saved.object.id.clone(), key);
        self.active += 1;
        let duration_deadline = route.duration_max_s.and_then(|limit| {
            let spent_ns = now.mono_ns.saturating_sub(saved.answered_mono_ns);
            let left_ns = (u64::from(limit) * 1_000_000_000).saturating_sub(spent_ns);
            now.instant
                .checked_add(std::time::Duration::from_nanos(left_ns))
        });
        let mut call = Box::new(Call {
            phase: Phase::Answered,
            offerer,
            recordings: saved.recordings,
            answered_mono_ns: saved.answered_mono_ns,
            held_since_ns: saved.held_since_ns,
            holds: saved.holds,
            duration_deadline,
            parties: saved.parties,
            shown: saved.shown,
            private: saved.private,
            passes_recording: saved.passes_recording,
            awareness: saved.awareness,
            sounding: saved.sounding,
            ..Call::new(key, saved.object, route, legs, media, negotiation)
        });
        let source = call.leg(Side::Caller).remote.ip();
        self.sources.call_began(source, now.instant);
        call.source = Some(source);
        self.ledger.resume(&call, now);
        self.siprec.dismiss(key, saved.dismissed);
        self.restore_recordings(&mut call, session.recording, session.phase, now);
        if saved.ending {
            self.resume_ending(&mut call, now);
        } else {
            self.resume_transfers(&mut call, saved.transfers, now);
        }
        self.settle(call, now);
        true
    }

    /// What the snapshot says of the session's recording is the truth.
    pub(super) fn restore_recordings(
        &mut self,
        call: &mut Call,
        live: u64,
        phase: RecordingPhase,
        now: &Moment,
    ) {
        let numbers: Vec<u64> = call
            .recordings
            .iter()
            .filter(|one| one.phase != Capture::Done)
            .map(|one| one.number)
            .collect();
        for number in numbers {
            self.metrics.recording_expected();
            let Some(recording) = call.recording(number) else {
                continue;
            };
            if number == live {
                match phase {
                    RecordingPhase::Running => recording.phase = Capture::Running,
                    RecordingPhase::Paused => recording.phase = Capture::Paused,
                    RecordingPhase::Stopped => {
                        recording.phase = Capture::Finishing;
                        self.command(Command::RecordingFinish {
                            session: call.key,
                            recording: number,
                        });
                    }
                }
            }
        }
        // Told of before the snapshot's end, and read by nobody.
        let (unread, rest) = std::mem::take(&mut self.unread)
            .into_iter()
            .partition(|event| super::link_events::session_of(event) == Some(call.key));
        self.unread = rest;
        let unread: Vec<Event> = unread;
        for event in unread {
            self.on_session_event(call, event, now);
        }
        let gone: Vec<u64> = call
            .recordings
            .iter()
            .filter(|one| one.phase != Capture::Done && one.number != live)
            .map(|one| one.number)
            .collect();
        for number in gone {
            let Some(recording) = call.recording(number) else {
                continue;
            };
            if recording.is_stored() {
                // It was finished while we were away; what the disk has is what there is.
                self.recording_closed(call, number, now);
            } else {
                // Only the segments know: it is closed with the catalog's other left-overs.
                recording.phase = Capture::Done;
            }
        }
    }

    pub(super) fn resume_ending(&mut self, call: &mut Call, now: &Moment) {
        let by = call.object.ended_by.unwrap_or(object::EndedBy::Unknown);
        self.end_call(call, by, None, now);
    }
}

impl SavedLeg {
    /// Of a leg with a dialog.
    pub(super) fn of(leg: &Leg) -> Option<Self> {
        Some(Self {
            dialog: leg.dialog.clone()?,
            transport: leg.transport,
            flow: leg.flow,
            local: leg.local,
            remote: leg.remote,
            contact: leg.contact.clone(),
            over: leg.over,
            session: leg.session.as_ref().map(SessionTimer::terms),
            takes_update: leg.takes_update,
            takes_info: leg.takes_info,
            aware: leg.aware,
        })
    }

    /// The leg again. A connection of the former process is no more.
    pub(super) fn restored(self, now: &Moment) -> Leg {
        let flow = self.flow.filter(|_| self.transport == Transport::Udp);
        let mut dialog = self.dialog;
        dialog.skip_requests(SKIPPED_REQUESTS);
        Leg {
            dialog: Some(dialog),
            over: self.over,
            session: self
                .session
                .map(|one| SessionTimer::start(now.instant, one)),
            takes_update: self.takes_update,
            takes_info: self.takes_info,
            aware: self.aware,
            ..Leg::new(self.transport, flow, self.local, self.remote, self.contact)
        }
    }
}

fn saved_call(call: &Call) -> Option<SavedCall> {
    let leg = |side: Side| SavedLeg::of(call.leg(side));
    Some(SavedCall {
        object: call.object.clone(),
        route: call.route.name.clone(),
        legs: [leg(Side::Caller)?, leg(Side::Callee)?],
        negotiation: call.negotiation.save(call.offerer),
        media_timeout_ms: call.media.media_timeout_ms,
        recordings: call.recordings.clone(),
        answered_mono_ns: call.answered_mono_ns,
        held_since_ns: call.held_since_ns,
        holds: call.holds.clone(),
        ending: call.phase == Phase::Ending,
        parties: call.parties.clone(),
        shown: call.shown,
        private: call.private,
        passes_recording: call.passes_recording,
        awareness: call.awareness.clone(),
        sounding: call.sounding.clone(),
        transfers: Transfers::of(call),
        dismissed: BTreeMap::new(),
    })
}

/// The route of that name; the first one where it is gone from the configuration, for the call goes on
/// all the same.
pub(super) fn route_of(config: &Config, name: &str) -> Option<Arc<Route>> {
    let route = config.routes.iter().find(|route| route.name == name);
    route.or(config.routes.first()).cloned()
}

fn remembered(
    negotiation: &Negotiation,
    key: u64,
    legs: &[SavedLeg; 2],
    nat: bool,
) -> Vec<LegUpdate> {
    Side::BOTH
        .into_iter()
        .zip(legs)
        .flat_map(|(side, leg)| negotiation.leg_updates(key, side, Some(leg.remote.ip()), nat))
        .collect()
}
