//! `[[recorder]]` and the routes that name them.

use super::*;

#[test]
fn recorders_are_read_and_named_by_routes() {
    let text = r#"
[[recorder]]
name = "main"
servers = ["sip:rec:secret@127.0.0.1:5071;transport=tcp", "sip:srs.example"]
required = true
start = "early"
answer_timeout_ms = 1500
skip_failover = "4.."
pause = "silence"
codecs = ["PCMA"]
replay = "after_call"
persistent = true
asks_from = ["192.0.2.7", "198.51.100.0/24"]
group = "sales"
caller = "\"A\" <sip:a@example.com>"
media_address = "192.0.2.7"
headers = { "X-Tenant" = "t1" }
socket = "udp:127.0.0.1:5060"
from_uri = "sip:src@example.com"
group_extension = "<x xmlns='urn:x'/>"

[[route]]
recorders = ["main", "local"]
on_recording_failure = "reject"
recording_grace_s = 9

[[route]]
srs = ["sip:127.0.0.1:5072"]
on_recording_failure = "hangup"
"#;
    let config = Config::parse(text, "test.toml").unwrap();
    let main = &config.recorders[0];
    assert_eq!(main.servers.len(), 2);
    assert!(main.required && main.start == RecorderStart::Early);
    assert_eq!(main.pause, RecorderPause::Silence);
    assert_eq!(main.replay, Replay::AfterCall);
    assert!(main.persistent);
    assert!(main.skip_failover.as_ref().unwrap().is_match("486"));
    assert!(main.may_ask("198.51.100.9".parse().unwrap()));
    assert!(!main.may_ask("192.0.2.8".parse().unwrap()));
    assert_eq!(
        main.settings.headers,
        [("X-Tenant".to_owned(), "t1".to_owned())]
    );
    let [first, second] = &config.routes[..] else {
        panic!("two routes");
    };
    assert_eq!(first.recorders.list[0].name, "main");
    assert!(first.recorders.local && first.record == Record::Yes);
    assert_eq!(first.recorders.on_failure, OnRecordingFailure::Reject);
    assert_eq!((first.recorders.grace_s, second.recorders.grace_s), (9, 5));
    let unnamed = &second.recorders.list[0];
    assert_eq!(
        (unnamed.name.as_str(), unnamed.answer_timeout_ms),
        ("default", 2000)
    );
    assert!(
        unnamed.required,
        "the policy is about the only recorder there is"
    );
}

#[test]
fn bad_recorders_are_refused_with_their_place() {
    const HEAD: &str = "[[recorder]]\nname = \"a\"\nservers = [\"sip:h\"]\n";
    for (text, line, key, why) in [
        (
            "[[recorder]]\nservers = [\"sip:h\"]",
            1,
            "recorder.name",
            "is missing",
        ),
        (
            "[[recorder]]\nname = \"a\"",
            1,
            "recorder.servers",
            "is missing",
        ),
        (
            "[[recorder]]\nname = \"all\"\nservers = [\"sip:h\"]",
            2,
            "recorder.name",
            "something else",
        ),
        (
            "[[recorder]]\nname = \"a\"\nservers = []",
            3,
            "recorder.servers",
            "1 to 16",
        ),
        (
            "[[route]]\nrecorders = [\"b\"]",
            2,
            "route.recorders",
            "no [[recorder]]",
        ),
    ] {
        refused(text, line, key, why);
    }
    for (keys, key, why) in [
        ("start = \"never\"", "recorder.start", "is not one of"),
        ("pause = \"stop\"", "recorder.pause", "is not one of"),
        ("replay = \"burst\"", "recorder.replay", "is not one of"),
        (
            "asks_from = [\"srs\"]",
            "recorder.asks_from",
            "neither an address",
        ),
        (
            "skip_failover = \"(\"",
            "recorder.skip_failover",
            "regular expression",
        ),
        (
            "headers = { \"Via\" = \"x\" }",
            "recorder.headers.Via",
            "itself",
        ),
        (
            "headers = { \"X-A\" = \"a\\r\\nB: c\" }",
            "recorder.headers.X-A",
            "line break",
        ),
        (
            "from_uri = \"mailto:a\"",
            "recorder.from_uri",
            "sip: or tel:",
        ),
        (
            "media_address = \"here\"",
            "recorder.media_address",
            "no IP address",
        ),
        (
            "answer_timeout_ms = 5",
            "recorder.answer_timeout_ms",
            "between",
        ),
    ] {
        refused(&format!("{HEAD}{keys}"), 4, key, why);
    }
    refused(
        &format!("{HEAD}socket = \"udp:127.0.0.1:5999\""),
        1,
        "recorder.socket",
        "not among",
    );
    refused(
        &format!("{HEAD}{HEAD}"),
        4,
        "recorder.name",
        "two recorders",
    );
}
