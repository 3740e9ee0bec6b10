//! Reliable provisional responses on the calling side (RFC 3262 section 4). The called side's
//! repetitions are the transaction layer's.

use super::state::{Dialog, DialogError};
use crate::message::{Method, RAck, Request, Response};

/// What a provisional response asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reliability {
    /// Not reliable: nothing to acknowledge.
    Plain,
    /// In order: handle it and send [`Dialog::prack`].
    Acknowledge,
    /// Seen before: its PRACK is under way, ignore it.
    Repeated,
    /// A gap before it: ignore it, its sender repeats what is missing.
    OutOfOrder,
}

impl Dialog {
    /// Judges a provisional response of this early dialog: reliable ones are to be handled in
    /// the order of their RSeq, each once.
    pub fn receive_provisional(&mut self, response: &Response) -> Reliability {
        let reliable = (101..=199).contains(&response.status)
            && response.headers.list_contains("Require", "100rel");
        let Ok(Some(rseq)) = response.headers.rseq() else {
            return Reliability::Plain;
        };
        if !reliable {
            return Reliability::Plain;
        }
        match self.last_rseq {
            Some(last) if rseq <= last => Reliability::Repeated,
            Some(last) if rseq > last + 1 => Reliability::OutOfOrder,
            _ => {
                self.last_rseq = Some(rseq);
                Reliability::Acknowledge
            }
        }
    }

    /// The PRACK of a reliable provisional response. It goes to the Contact of this early
    /// dialog, so that each fork gets its own.
    ///
    /// # Errors
    /// The response carries no RSeq or CSeq; the dialog has ended.
    pub fn prack(&mut self, response: &Response) -> Result<Request, DialogError> {
        let rseq = response
            .headers
            .rseq()
            .ok()
            .flatten()
            .ok_or(DialogError::Missing("RSeq"))?;
        let cseq = response
            .headers
            .cseq()
            .map_err(|_| DialogError::Missing("CSeq"))?;
        let request = self.request(Method::Prack)?;
        Ok(request.with("RAck", RAck { rseq, cseq }.to_string()))
    }
}
