//! Session-ID (RFC 7989) in the messages of a dialog.

use super::Dialog;
use crate::message::{Headers, SessionId};

impl Dialog {
    /// What our messages say of the session's ends; `None` = nothing.
    pub fn session_id(&self) -> Option<&SessionId> {
        self.session.as_deref()
    }

    /// Says this of the session's ends from now on (RFC 7989).
    pub fn set_session_id(&mut self, session: Option<SessionId>) {
        self.session = session.map(Box::new);
    }

    /// Another end speaks through us from now on; nothing changes where nothing is said of ends.
    pub fn speak_for(&mut self, local: &str) {
        if let Some(session) = &mut self.session
            && session.local != local
        {
            local.clone_into(&mut session.local);
        }
    }

    pub(super) fn hear_session(&mut self, headers: &Headers) {
        if let Some(session) = &mut self.session
            && let Some(remote) = SessionId::sender(headers)
        {
            session.remote = remote;
        }
    }
}
