//! The opaque record of a recording session that the dataplane keeps for us, so that a restarted
//! control goes on with the recorder that has it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trunkline_config::{Recorder, SipTarget};
use trunkline_link::message::{Command, ForkState, SnapshotSession};
use trunkline_sdp::{Description, OriginState};
use trunkline_sinks::Timestamp;
use trunkline_sip::dialog::{Dialog, SessionTerms, SessionTimer};
use trunkline_sip::message::Uri;
use trunkline_sip::transaction::{FlowId, Transport};

use super::sdp::{self, Line};
use super::state::{Phase, RecordingSession, Server};
use super::story::Story;
use super::view::CallView;
use super::{Client, Context};
use crate::call::Leg;
use crate::packing::{pack, unpack};
use crate::siprec::session::Gap;

/// Version of the record's layout; the high bits tell it from a call's and from a server's.
const VERSION: u8 = 0xC2;

#[derive(Serialize, Deserialize)]
struct Saved {
    id: String,
    call: u64,
    recorder: String,
    server: String,
    dialog: Dialog,
    transport: Transport,
    flow: Option<FlowId>,
    local: std::net::SocketAddr,
    remote: std::net::SocketAddr,
    contact: Uri,
    timer: Option<SessionTerms>,
    story: Story,
    lines: Vec<Line>,
    heard: String,
    origin: OriginState,
    paused: bool,
    #[serde(default)]
    by_recorder: bool,
    started_at: Timestamp,
    revision: u32,
    revised_at: Option<Timestamp>,
    failovers: u32,
    gaps: Vec<Gap>,
}

/// A session that an earlier control left behind.
pub struct Left {
    /// The call that it records.
    pub call: u64,
    saved: Saved,
    session: SnapshotSession,
}

impl Left {
    /// Reads a session's record; `None` when it is no recording session's.
    pub fn read(session: &SnapshotSession) -> Option<Self> {
        let saved: Saved = unpack(VERSION, &session.record)?;
        Some(Self {
            call: saved.call,
            saved,
            session: session.clone(),
        })
    }
}

impl Left {
    /// Its session on the link.
    pub fn key(&self) -> u64 {
        self.session.session
    }
}

impl Client {
    /// Has the dataplane keep what a restarted control would need.
    pub(super) fn save(&mut self, session: &RecordingSession, cx: &mut Context<'_>) {
        let alone = session.carrier.is_none() && !session.is_carrier();
        if session.phase != Phase::Standing || session.replay.is_some() || !alone {
            return;
        }
        let Some(saved) = saved(session) else { return };
        let Some(record) = pack(VERSION, &saved) else {
            tracing::warn!(session = %session.id, "the recording session's record is too large: it would not survive a restart");
            return;
        };
        let command = Command::SessionRecord {
            session: session.key,
            record,
        };
        session.command(command, cx);
    }

    /// Goes on with a session that an earlier control left behind, once its call is there again.
    pub fn restore(&mut self, left: Left, view: &CallView, cx: &mut Context<'_>) {
        let Left { saved, session, .. } = left;
        let view = Arc::new(view.clone());
        let configured = view.recorders.list.iter().chain(&cx.config.recorders);
        let named = configured.clone().find(|one| one.name == saved.recorder);
        let target = SipTarget::parse(&saved.server).ok();
        let recorder = named.cloned().unwrap_or_else(|| {
            // It was started by the operator, or is gone from the configuration.
            let servers = target.clone().into_iter().collect();
            Arc::new(Recorder::new(&saved.recorder, servers))
        });
        let mut restored = self.new_session(&view, &recorder, cx);
        restored.key = session.session;
        restored.media = crate::call::media::Media::new(session.session, session.interface, 0);
        restored.media.beside = view.key;
        restored.media.open = session.media;
        restored.server = target.as_ref().and_then(Server::of);
        let timer = saved.timer;
        let flow = saved.flow.filter(|_| saved.transport == Transport::Udp);
        self.dialogs.insert(saved.dialog.id(), restored.key);
        restored.leg = Some(Leg {
            dialog: Some(saved.dialog),
            session: timer.map(|terms| SessionTimer::start(cx.now.instant, terms)),
            ..Leg::new(
                saved.transport,
                flow,
                saved.local,
                saved.remote,
                saved.contact,
            )
        });
        restored.id = saved.id;
        restored.story = saved.story;
        restored.lines = saved.lines;
        restored.paused = saved.paused;
        restored.by_recorder = saved.by_recorder;
        restored.offered = restored.offer(false);
        restored.told = sdp::body(Self::media_address(&restored, cx), &restored.offered);
        restored.heard = saved.heard;
        if let Ok(heard) = Description::parse(restored.heard.as_bytes()) {
            restored.accepted = sdp::read(&heard, &restored.offered);
        }
        restored.origin = saved.origin;
        restored.phase = Phase::Standing;
        restored.announced = true;
        restored.forking = true;
        restored.fork = match saved.paused {
            true => restored.wanted_fork(),
            false => ForkState::Running,
        };
        (restored.started_at, restored.revision) = (saved.started_at, saved.revision);
        (restored.revised_at, restored.failovers) = (saved.revised_at, saved.failovers);
        restored.gaps = saved.gaps;
        // What the dataplane was told is remembered, for when that one dies.
        let _ = restored.leg_commands();
        let call = self.calls.entry(view.key).or_default();
        call.view = Some(Arc::clone(&view));
        call.begun.insert(recorder.name.clone());
        call.sessions.push(restored.key);
        self.settle(restored, cx);
    }
}

fn saved(session: &RecordingSession) -> Option<Saved> {
    let leg = session.leg.as_ref()?;
    Some(Saved {
        id: session.id.clone(),
        call: session.view.key,
        recorder: session.recorder.name.clone(),
        server: session.server_name(),
        dialog: leg.dialog.clone()?,
        transport: leg.transport,
        flow: leg.flow,
        local: leg.local,
        remote: leg.remote,
        contact: leg.contact.clone(),
        timer: leg.session.as_ref().map(SessionTimer::terms),
        story: session.story.clone(),
        lines: session.lines.clone(),
        heard: session.heard.clone(),
        origin: session.origin.clone(),
        paused: session.paused,
        by_recorder: session.by_recorder,
        started_at: session.started_at,
        revision: session.revision,
        revised_at: session.revised_at,
        failovers: session.failovers,
        gaps: session.gaps.clone(),
    })
}
