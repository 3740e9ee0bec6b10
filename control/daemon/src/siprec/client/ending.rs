//! How recording sessions end.

use trunkline_config::RecorderPause;
use trunkline_link::message::Command;
use trunkline_sip::message::{Method, Request};
use trunkline_siprec::metadata::{MEDIA_TYPE, Metadata, write};

use super::state::{Departure, Phase, RecordingSession, Step};
use super::view::Stage;
use super::{Client, Context, END_PATIENCE, Use};
use crate::b2bua::headers;

impl Client {
    /// The call is over, or the recorder is to stop.
    pub(super) fn end(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        if matches!(session.phase, Phase::Ending | Phase::Over) {
            return;
        }
        session.ended_at = Some(cx.now.utc);
        if session.view.ended_at.is_none() {
            session.story.suspend(cx.now.utc);
        }
        let settings = &session.recorder.settings;
        session
            .story
            .update(&session.view, &session.lines, settings);
        session.retry_at = None;
        let answered = session.last_view.stage == Stage::Answered;
        if answered && !session.announced && session.view.ended_at.is_some() {
            let why = "the call was over before a server had it";
            self.begin_gap(session, session.started_at, why);
        }
        if session.invited.is_some() {
            self.refuse_asking(session, 480, cx);
            session.phase = Phase::Over;
            return;
        }
        self.abandon(session, cx);
        session.phase = Phase::Ending;
        session.end_deadline = Some(cx.now.instant + END_PATIENCE);
        // Packets stop, and are counted, before the recorder is told.
        let stop = std::mem::take(&mut session.forking).then_some(Command::ForkStop {
            session: session.view.key,
            target: session.key,
        });
        self.batch(session, stop.into_iter().collect(), Step::Stopped, cx);
    }

    /// No packet leaves any more: the recorder is told of the end.
    pub(super) fn stopped(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        if let Some(carrier) = session.carrier {
            let carrier = self.sessions.get(&carrier);
            if session.announced && carrier.is_some_and(RecordingSession::stands) {
                session.departs = Departure::Wanted;
                session.asks_carrier = true;
            } else {
                session.phase = Phase::Over;
            }
            return;
        }
        let document = self.document_of(session, false);
        let bye = session.dialog().and_then(|dialog| {
            let bye = dialog.request(Method::Bye).ok();
            dialog.terminate();
            bye
        });
        let told = bye.is_some_and(|bye| self.send_bye(session, bye, document.as_ref(), cx));
        if !told {
            session.phase = Phase::Over;
        }
    }

    fn send_bye(
        &mut self,
        session: &mut RecordingSession,
        mut bye: Request,
        document: Option<&Metadata>,
        cx: &mut Context<'_>,
    ) -> bool {
        bye.headers.set("User-Agent", headers::SERVER);
        match document {
            Some(document) => {
                bye.headers.set("Content-Disposition", "recording-session");
                bye.set_body(MEDIA_TYPE, write(document));
            }
            None => bye.set_content_length(),
        }
        let Some(leg) = &session.leg else {
            return false;
        };
        let target = leg.target();
        match cx.endpoint.send_request(cx.now.instant, bye, &target) {
            Ok(client) => {
                self.own_client(session, client, Use::Bye);
                true
            }
            Err(_) => false,
        }
    }

    /// A BYE to a server that is lost, whose answer nobody waits for.
    pub(super) fn send_stray_bye(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        let Some(leg) = &mut session.leg else { return };
        let target = leg.target();
        let bye = leg
            .dialog
            .as_mut()
            .and_then(|dialog| dialog.request(Method::Bye).ok());
        if let Some(mut bye) = bye {
            bye.headers.set("User-Agent", headers::SERVER);
            bye.set_content_length();
            let _ = cx.endpoint.send_request(cx.now.instant, bye, &target);
        }
    }

    /// Everything is to end: we exit.
    pub fn end_all(&mut self, cx: &mut Context<'_>) {
        let keys: Vec<u64> = self.sessions.keys().copied().collect();
        for key in keys {
            self.with(key, cx, |client, session, cx| client.end(session, cx));
        }
    }

    /// The fork holds back or silences: the recorder may be told.
    pub(super) fn paused(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        self.answer_waiting(session, &Ok(()), cx);
        self.save(session, cx);
        if session.recorder.pause == RecorderPause::Inactive {
            self.tell(session, cx);
        }
    }

    /// Nothing is left to be told: whoever waits for a resumption has it.
    pub(super) fn resumed(&mut self, session: &mut RecordingSession, cx: &mut Context<'_>) {
        let holds = session.fork == session.wanted_fork() || !session.forking;
        if holds && !session.waiting.is_empty() && session.phase == Phase::Standing {
            self.answer_waiting(session, &Ok(()), cx);
            self.save(session, cx);
        }
    }
}
