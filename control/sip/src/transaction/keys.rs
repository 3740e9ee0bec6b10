//! By what requests and responses find their transactions (RFC 3261 sections 17.1.3, 17.2.3,
//! 8.2.2.2 and 9.2).

use crate::message::{CSeq, HeaderError, Method, Request, Via};

/// The names by which a received request is looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestKeys {
    /// Branch, sent-by and method; for requests without a magic cookie RFC 2543's way.
    pub(crate) transaction: String,
    /// Call-ID, From tag, CSeq number and method: the same over all ways a request can take.
    pub(crate) request: String,
    /// Call-ID, CSeq number, From tag and To tag: by which an ACK finds its INVITE.
    pub(crate) dialog: String,
    pub(crate) to_tag: Option<String>,
}

impl RequestKeys {
    /// The keys of a judged request. ACK and CANCEL get those of the INVITE they are about.
    pub(crate) fn of(request: &Request) -> Result<RequestKeys, HeaderError> {
        let headers = &request.headers;
        let via = headers.via()?;
        let cseq = headers.cseq()?;
        let call_id = headers.call_id()?;
        let from_tag = headers.from_tag().unwrap_or_default();
        let to_tag = headers.to_tag();
        let method = match request.method {
            Method::Ack | Method::Cancel => "INVITE",
            _ => request.method.as_str(),
        };
        let request_key = format!("{call_id} {from_tag} {} {method}", cseq.number);
        let transaction = match via.transaction_branch() {
            Some(branch) => format!("{branch} {} {method}", via.sent_by()),
            None => old_key(request, &via, &request_key),
        };
        let dialog = ack_key(&call_id, &cseq, &from_tag, to_tag.as_deref().unwrap_or(""));
        Ok(RequestKeys {
            transaction,
            request: request_key,
            dialog,
            to_tag,
        })
    }
}

/// RFC 2543's identity: everything that a repetition has in common with its original.
fn old_key(request: &Request, via: &Via, request_key: &str) -> String {
    let branch = via.branch().unwrap_or("");
    format!(
        "old {request_key} {} {} {branch}",
        request.uri,
        via.sent_by()
    )
}

/// The key of an ACK.
pub(crate) fn ack_key(call_id: &str, cseq: &CSeq, from_tag: &str, to_tag: &str) -> String {
    format!("{call_id} {} {from_tag} {to_tag}", cseq.number)
}
