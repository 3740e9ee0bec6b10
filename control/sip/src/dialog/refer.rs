//! The implicit subscription of REFER (RFC 3515): NOTIFY with the outcome as sipfrag.

use super::state::{Dialog, DialogError};
use crate::message::{Method, Request, reason_phrase};

/// Why a subscription is over, for Subscription-State.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriptionEnd {
    /// The outcome has been told.
    NoResource,
    /// Nothing more will be told.
    Timeout,
    Rejected,
}

impl SubscriptionEnd {
    fn as_str(self) -> &'static str {
        match self {
            SubscriptionEnd::NoResource => "noresource",
            SubscriptionEnd::Timeout => "timeout",
            SubscriptionEnd::Rejected => "rejected",
        }
    }
}

impl Dialog {
    /// The NOTIFY that tells how a transfer goes: `status` is what the new call answered so
    /// far. `refer_cseq` names the REFER where there was more than one in the dialog.
    /// A final status, or `end`, ends the subscription.
    ///
    /// # Errors
    /// The dialog has ended.
    pub fn refer_notify(
        &mut self,
        refer_cseq: Option<u32>,
        status: u16,
        end: Option<SubscriptionEnd>,
    ) -> Result<Request, DialogError> {
        let end = end.or((status >= 200).then_some(SubscriptionEnd::NoResource));
        let event = match refer_cseq {
            Some(cseq) => format!("refer;id={cseq}"),
            None => "refer".to_owned(),
        };
        let state = match end {
            Some(end) => format!("terminated;reason={}", end.as_str()),
            None => "active;expires=60".to_owned(),
        };
        let body = format!("SIP/2.0 {status} {}\r\n", reason_phrase(status));
        let request = self.request(Method::Notify)?;
        Ok(request
            .with("Event", event)
            .with("Subscription-State", state)
            .with_body("message/sipfrag;version=2.0", body))
    }
}

/// The status a sipfrag body tells of.
pub fn parse_sipfrag(body: &[u8]) -> Option<u16> {
    let line = body.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    let mut words = line.split(|byte| *byte == b' ');
    words
        .next()
        .filter(|version| version.eq_ignore_ascii_case(b"SIP/2.0"))?;
    let code = std::str::from_utf8(words.next()?).ok()?;
    code.parse()
        .ok()
        .filter(|status| code.len() == 3 && (100..700).contains(status))
}
