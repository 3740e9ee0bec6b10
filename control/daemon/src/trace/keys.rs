//! Bodies of SIP messages that say which key somebody pressed.

/// The message with the key in its body made unreadable; `None` when it has none.
pub(super) fn masked(message: &[u8]) -> Option<Vec<u8>> {
    let end = message.windows(4).position(|bytes| bytes == b"\r\n\r\n")? + 4;
    let (head, body) = message.split_at(end);
    let head_text = String::from_utf8_lossy(head).to_ascii_lowercase();
    let says_keys = head_text.split("\r\n").any(|line| {
        let value = line
            .strip_prefix("content-type")
            .or_else(|| line.strip_prefix('c'))
            .and_then(|rest| rest.trim_start().strip_prefix(':'));
        value.is_some_and(|value| value.contains("dtmf") || value.contains("digits"))
    });
    if !says_keys || body.is_empty() {
        return None;
    }
    let mut masked = head.to_vec();
    for line in body.split_inclusive(|&byte| byte == b'\n') {
        // `Signal=5`, `Signal: 5`, `d=5`, or the key alone.
        let value = line
            .iter()
            .position(|byte| matches!(byte, b'=' | b':'))
            .map_or(0, |at| at + 1);
        masked.extend(&line[..value]);
        masked.extend(line[value..].iter().map(
            |&byte| {
                if byte.is_ascii_graphic() { b'x' } else { byte }
            },
        ));
    }
    Some(masked)
}

#[cfg(test)]
mod tests {
    use super::masked;

    #[test]
    fn keys_are_masked_and_nothing_else() {
        let info = |content_type: &str, body: &str| {
            format!("INFO sip:b@h SIP/2.0\r\n{content_type}\r\nContent-Length: 9\r\n\r\n{body}")
        };
        for (content_type, body, shown) in [
            (
                "Content-Type: application/dtmf-relay",
                "Signal=5\r\nDuration=160\r\n",
                "Signal=x\r\nDuration=xxx\r\n",
            ),
            ("c: application/dtmf", "#", "x"),
            (
                "Content-Type : application/vnd.nortelnetworks.digits",
                "p=Digit-Collection\nd=5\n",
                "p=xxxxxxxxxxxxxxxx\nd=x\n",
            ),
        ] {
            let masked = masked(info(content_type, body).as_bytes()).expect("it says a key");
            assert_eq!(
                String::from_utf8(masked).expect("text"),
                info(content_type, shown)
            );
        }
        assert!(masked(info("Content-Type: application/sdp", "v=0\r\n").as_bytes()).is_none());
        assert!(masked(info("Content-Type: application/dtmf-relay", "").as_bytes()).is_none());
        assert!(masked(b"INFO").is_none());
    }
}
