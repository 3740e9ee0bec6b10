//! Responses in words.

use trunkline_sip::message::Response;

/// Status and reason.
pub(super) fn describe(response: &Response) -> String {
    format!("{} {}", response.status, response.reason_text())
}

/// A refusal in words that tell what to do.
pub(super) fn refusal(response: &Response) -> String {
    let hint = match response.status {
        300..=399 => "it sends clients elsewhere; probe that address",
        401 | 407 => "credentials are needed: sip:user:password@host",
        403 => "our address or user is not allowed",
        404 | 604 => "it does not know this user",
        405 | 501 => "it does not know the method",
        415 => "it does not take this body",
        420 => "it does not know the option siprec",
        480 | 486 | 503 => "it takes no recordings now",
        481 => "it has lost the session",
        488 | 606 => "it takes none of the media offered",
        _ => "it refuses",
    };
    let mut text = format!("{}: {hint}", describe(response));
    for name in ["Warning", "Reason", "Retry-After", "Unsupported", "Contact"] {
        let tells = name != "Contact" || (300..=399).contains(&response.status);
        if let Some(value) = response.headers.get(name).filter(|_| tells) {
            text += &format!(" ({name}: {value})");
        }
    }
    text
}
