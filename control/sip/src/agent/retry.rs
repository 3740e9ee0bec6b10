//! An INVITE that is sent anew: with credentials after a challenge, with a longer interval after
//! 422, to another target after a redirection.

use std::time::Instant;

use super::core::Agent;
use super::request::{Sent, authorize};
use super::types::AttemptHandle;
use crate::message::{Contact, Request, Response};

impl<C: Clone + Default> Agent<C> {
    /// Sends the INVITE anew where the refusal says how.
    pub(super) fn try_again(
        &mut self,
        now: Instant,
        handle: AttemptHandle,
        request: &Request,
        response: &Response,
    ) -> Option<()> {
        let attempt = self
            .attempts
            .get_mut(&handle)
            .filter(|own| !own.cancelled)?;
        match response.status {
            401 | 407 if attempt.authorization.is_none() => {
                let credentials = attempt.invite.credentials.clone()?;
                let mut again = request.clone();
                authorize(&mut again, response, &credentials, &mut self.random)?;
                let name = if response.status == 401 {
                    "Authorization"
                } else {
                    "Proxy-Authorization"
                };
                let value = again.headers.get(name)?.into_owned();
                attempt.authorization = Some((name, value));
            }
            422 => attempt.policy = Some(attempt.policy?.after_422(response)?),
            300..=399 => {
                for contact in response.headers.contacts().unwrap_or_default() {
                    if let Contact::Address(address) = contact {
                        attempt.redirects.push_back(address.uri);
                    }
                }
                self.follow_redirect(handle)?;
            }
            _ => self.follow_redirect(handle)?,
        }
        let attempt = self.attempts.get_mut(&handle)?;
        attempt.cseq += 1;
        let attempt = self.attempts.get(&handle)?;
        let request = self.build_invite(attempt);
        let target = attempt.target.clone();
        let tx = self
            .endpoint
            .send_request(now, request.clone(), &target)
            .ok()?;
        let attempt = self.attempts.get_mut(&handle)?;
        attempt.tx = tx;
        attempt.transactions.push(tx);
        let attempt = handle;
        self.sent.insert(tx, Sent::Invite { attempt, request });
        Some(())
    }

    /// Turns to the next target that a redirection named and that we can reach.
    fn follow_redirect(&mut self, handle: AttemptHandle) -> Option<()> {
        loop {
            let attempt = self.attempts.get_mut(&handle)?;
            let uri = attempt.redirects.pop_front()?;
            attempt.redirects_left = attempt.redirects_left.checked_sub(1)?;
            if let Some(target) = self.target_for(&uri) {
                let attempt = self.attempts.get_mut(&handle)?;
                (attempt.uri, attempt.target) = (uri.without_headers(), target);
                attempt.authorization = None;
                return Some(());
            }
        }
    }
}
