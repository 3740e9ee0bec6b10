//! The commands as an operator types them: usage, judgement of files, and answers of an appliance.

use assert_cmd::Command;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

fn trunkline(arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::cargo_bin("trunkline")
        .unwrap()
        .args(arguments)
        .current_dir(&folder)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in [
        "up",
        "check",
        "demo",
        "calls",
        "recordings",
        "workers",
        "hangup",
        "record",
        "siprec",
        "audit",
        "explain",
    ] {
        let (code, out, _) = trunkline(&[command, "--help"]);
        assert_eq!(code, 0, "{command}");
        assert!(
            out.contains(&format!("Example: trunkline {command}")),
            "{command}: {out}"
        );
    }
    let (code, out, _) = trunkline(&["--help"]);
    assert_eq!(code, 0);
    assert!(
        out.contains("Example: trunkline up") && !out.contains("guarded"),
        "{out}"
    );
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for arguments in [
        &[][..],
        &["dance"],
        &["check"],
        &["hangup"],
        &["record", "id", "explode"],
        &["calls", "--limit", "0"],
        &["calls", "--nonsense"],
        &["up", "--config"],
        &["audit", "--from", "2026-01-01T00:00:00Z"],
    ] {
        let (code, _, error) = trunkline(arguments);
        assert_eq!(code, 2, "{arguments:?}");
        assert!(!error.is_empty(), "{arguments:?}");
    }
}

#[test]
fn recording_sessions_are_listed_with_their_packets() {
    const ONE: &str = r#"{"items":[{"id":"s1","role":"client","state":"active","instance":"main","server":"sip:srs","call":"c1","revision":2,"streams":[{"packets":5},{"packets":7}]}],"next":null}"#;
    let (url, asked) = answer_once("200 OK", ONE);
    let (code, shown, error) = trunkline(&["siprec", "--url", &url]);
    assert_eq!(code, 0, "{error}");
    assert!(shown.contains("active") && shown.contains("5+7"), "{shown}");
    assert!(asked.join().unwrap().starts_with("GET /v1/siprec?"));
}

#[test]
fn an_audit_lists_exceptions_and_fails_when_there_is_one() {
    const BAD: &str = r#"{"expected":3,"complete":1,"pending":1,"exceptions":[{"call_id":"c9","recording_id":null,"why":"no recording"}]}"#;
    const GOOD: &str = r#"{"expected":3,"complete":3,"pending":0,"exceptions":[]}"#;
    for (body, expected, shown) in [(BAD, 1, "no recording"), (GOOD, 0, "3 complete")] {
        for json in [false, true] {
            let (url, asked) = answer_once("200 OK", body);
            let mut arguments = vec!["audit", "--from", "2026-01-01T00:00:00+01:00", "--to"];
            arguments.extend(["2026-02-01T00:00:00Z", "--url", &url]);
            arguments.extend(json.then_some("--json"));
            let (code, out, error) = trunkline(&arguments);
            assert_eq!(code, expected, "{out} {error}");
            assert!(json || out.contains(shown), "{out}");
            let request = asked.join().unwrap();
            assert!(
                request.contains("/v1/audit?from=2026-01-01T00%3A00%3A00%2B01%3A00&to="),
                "{request}"
            );
        }
    }
}

#[test]
fn check_names_every_error_of_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    std::fs::write(
        &path,
        "[[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecord = true\n",
    )
    .unwrap();
    let (code, out, error) = trunkline(&["check", path.to_str().unwrap()]);
    assert_eq!((code, error.as_str()), (0, ""));
    assert!(
        out.contains("good") && out.contains("sip:127.0.0.1:5070, recorded"),
        "{out}"
    );
    std::fs::write(&path, "drain = 5\n[sip]\nlisten = [\"udp:nowhere\"]\n").unwrap();
    let (code, _, error) = trunkline(&["check", path.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(
        error.contains("t.toml:1: drain: ") && error.contains("t.toml:3: sip.listen: "),
        "{error}"
    );
    let (code, _, error) = trunkline(&["check", "missing.toml"]);
    assert_eq!(code, 1);
    assert!(error.starts_with("missing.toml: cannot be read"), "{error}");
}

#[test]
fn nobody_at_home_is_said_with_the_address() {
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (code, _, error) = trunkline(&["calls", "--url", &format!("http://{free}")]);
    assert_eq!(code, 1);
    assert!(
        error.contains("no appliance answers") && error.contains(&free.to_string()),
        "{error}"
    );
}

/// Answers one request with this status and body; gives the request's head and body.
fn answer_once(
    status: &'static str,
    body: &'static str,
) -> (String, std::thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let mut request = String::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            request.push_str(&line);
            if line == "\r\n" {
                break;
            }
        }
        let mut content = vec![0; length];
        reader.read_exact(&mut content).unwrap();
        request.push_str(&String::from_utf8(content).unwrap());
        let mut stream = reader.into_inner();
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
        .unwrap();
        request
    });
    (url, thread)
}

#[test]
fn lists_are_tables_for_people_and_json_for_programs() {
    const BODY: &str = r#"{"items":[{"id":"c1","state":"active","caller":"alice","callee":"bob","answered_at":null}],"next":null}"#;
    let (url, request) = answer_once("200 OK", BODY);
    let (code, out, _) = trunkline(&["calls", "--url", &url]);
    assert_eq!(code, 0);
    assert!(
        out.starts_with("ID  STATE") && out.contains("c1  active  alice   bob     -"),
        "{out}"
    );
    assert!(
        request
            .join()
            .unwrap()
            .starts_with("GET /v1/calls?limit=100 HTTP/1.1")
    );
    let (url, request) = answer_once("200 OK", BODY);
    let (code, out, _) = trunkline(&["recordings", "--json", "--party", "+49", "--url", &url]);
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    assert_eq!((code, json(&out)), (0, json(BODY)));
    assert!(
        request
            .join()
            .unwrap()
            .starts_with("GET /v1/recordings?limit=100&party=%2B49 ")
    );
}

#[test]
fn actions_carry_the_token_and_show_the_reason_of_a_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret\n").unwrap();
    let (url, request) = answer_once("200 OK", r#"{"id":"r1","state":"paused"}"#);
    let (code, out, _) = trunkline(&[
        "record",
        "c1",
        "pause",
        "--url",
        &url,
        "--token-file",
        token.to_str().unwrap(),
    ]);
    assert_eq!((code, out.as_str()), (0, "r1: paused\n"));
    let request = request.join().unwrap();
    assert!(
        request.starts_with("POST /v1/calls/c1/recording "),
        "{request}"
    );
    assert!(
        request
            .to_ascii_lowercase()
            .contains("authorization: bearer s3cret"),
        "{request}"
    );
    assert!(request.ends_with(r#"{"action":"pause"}"#), "{request}");
    let (url, _request) = answer_once(
        "404 Not Found",
        r#"{"error":{"code":"not_found","message":"no such call"}}"#,
    );
    let (code, _, error) = trunkline(&["hangup", "c/1", "--url", &url]);
    assert_eq!(code, 1);
    assert!(error.contains("no such call"), "{error}");
}
