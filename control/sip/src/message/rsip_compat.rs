//! To and from the rsip crate's types, for code that generates or reads headers with them.
//! rsip refuses much that is valid (IPv6, folded headers, unknown methods, tel and urn), so
//! it never stands in the way of a received message.

use super::{Message, Request, Response, parse_datagram};

/// A message that one of the two parsers doesn't take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RsipError(pub String);

impl TryFrom<&Message> for rsip::SipMessage {
    type Error = RsipError;

    fn try_from(message: &Message) -> Result<rsip::SipMessage, RsipError> {
        let bytes = message.to_bytes();
        rsip::SipMessage::try_from(bytes).map_err(|error| RsipError(error.to_string()))
    }
}

impl TryFrom<rsip::Request> for Request {
    type Error = RsipError;

    fn try_from(request: rsip::Request) -> Result<Request, RsipError> {
        match parse_datagram(&Vec::from(request)) {
            Ok(Message::Request(request)) => Ok(request),
            Ok(Message::Response(_)) => Err(RsipError("not a request".to_owned())),
            Err(rejected) => Err(RsipError(rejected.fault.reason)),
        }
    }
}

impl TryFrom<rsip::Response> for Response {
    type Error = RsipError;

    fn try_from(response: rsip::Response) -> Result<Response, RsipError> {
        match parse_datagram(&Vec::from(response)) {
            Ok(Message::Response(response)) => Ok(response),
            Ok(Message::Request(_)) => Err(RsipError("not a response".to_owned())),
            Err(rejected) => Err(RsipError(rejected.fault.reason)),
        }
    }
}
