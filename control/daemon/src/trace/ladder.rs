//! A message in one line, and whose it is. Looks at bytes as they came: malformed ones too.

/// Lines of a message's head, without their ends.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .take_while(|line| !line.is_empty())
}

/// A header's first value, by its long and its compact name.
fn header(bytes: &[u8], name: &str, compact: &str) -> Option<String> {
    lines(bytes).skip(1).find_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let found = line[..colon].trim_ascii();
        let ours = found.eq_ignore_ascii_case(name.as_bytes())
            || (!compact.is_empty() && found.eq_ignore_ascii_case(compact.as_bytes()));
        ours.then(|| String::from_utf8_lossy(line[colon + 1..].trim_ascii()).into_owned())
    })
}

/// The Call-ID.
pub(super) fn call_id(bytes: &[u8]) -> Option<String> {
    header(bytes, "Call-ID", "i")
}

/// A message in one line: `INVITE sip:b@example.com (SDP)`, `180 Ringing (1 INVITE)`.
#[must_use]
pub fn summary(bytes: &[u8]) -> String {
    let first = lines(bytes).next().unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    let mut text = match first.strip_prefix("SIP/2.0 ") {
        Some(status) => {
            let cseq = header(bytes, "CSeq", "").unwrap_or_default();
            format!("{status} ({cseq})")
        }
        None => first.strip_suffix(" SIP/2.0").unwrap_or(&first).to_owned(),
    };
    let kind = header(bytes, "Content-Type", "c").unwrap_or_default();
    if kind.to_ascii_lowercase().starts_with("application/sdp") {
        text.push_str(" (SDP)");
    }
    if let Some(reason) = header(bytes, "Reason", "") {
        text.push_str(&format!(" [{reason}]"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_responses_are_told_in_a_line() {
        let invite =
            b"INVITE sip:b@h SIP/2.0\r\ni : abc@h\r\nc: application/sdp\r\n\r\nCall-ID: body";
        assert_eq!(call_id(invite).as_deref(), Some("abc@h"));
        assert_eq!(summary(invite), "INVITE sip:b@h (SDP)");
        let busy = b"SIP/2.0 486 Busy Here\r\nCSeq: 1 INVITE\r\nReason: Q.850;cause=17\r\n\r\n";
        assert_eq!(summary(busy), "486 Busy Here (1 INVITE) [Q.850;cause=17]");
        assert_eq!(call_id(b"\x00\xff\r\n\r\n"), None);
        assert_eq!(summary(b""), "");
    }
}
