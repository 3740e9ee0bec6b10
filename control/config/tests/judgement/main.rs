//! What a file means and what is said about a wrong one.

use trunkline_config::{
    Backend, Config, ConfigError, Cores, Host, Idle, IndicationMode, Next, OnRecordingFailure,
    Record, RecorderPause, RecorderStart, Replay, Sound, Tone, Transfer, Transport,
};

mod recorders;
mod sounds;

fn errors(text: &str) -> Vec<ConfigError> {
    match Config::parse(text, "test.toml") {
        Ok(_) => Vec::new(),
        Err(errors) => errors.0,
    }
}

/// Expects exactly one error, at this line and key, with these words.
fn refused(text: &str, line: usize, key: &str, words: &str) {
    let found = errors(text);
    assert_eq!(found.len(), 1, "{text}\n{found:#?}");
    let error = &found[0];
    assert_eq!(
        (error.line, error.key.as_str()),
        (line, key),
        "{text}\n{error}"
    );
    assert!(error.message.contains(words), "{text}\n{error}");
    assert!(
        error
            .to_string()
            .starts_with(&format!("test.toml:{line}: {key}: ")),
        "{error}"
    );
}

#[test]
fn an_empty_file_gives_the_documented_defaults() {
    let config = Config::parse("", "test.toml").unwrap();
    assert_eq!(config.data_dir.to_str(), Some("trunkline-data"));
    assert_eq!(config.drain_timeout_s, 5);
    assert_eq!(config.dataplane.backend, Backend::Uring);
    assert_eq!(config.dataplane.cores, Cores::Auto);
    assert_eq!(config.dataplane.idle, Idle::Park);
    assert_eq!(config.interfaces.len(), 1);
    let interface = &config.interfaces[0];
    assert_eq!(
        (interface.name.as_str(), interface.address.to_string()),
        ("default", "127.0.0.1".into())
    );
    assert_eq!(
        (interface.ports.first, interface.ports.last),
        (16384, 32767)
    );
    assert_eq!(config.control.http.to_string(), "127.0.0.1:8080");
    assert_eq!(config.control.token, None);
    let listen: Vec<String> = config.sip.listen.iter().map(ToString::to_string).collect();
    assert_eq!(listen, ["udp:127.0.0.1:5060", "tcp:127.0.0.1:5060"]);
    assert_eq!(config.sip.allow.len(), 2);
    assert_eq!(config.sip.emergency, ["112", "911", "urn:service:sos"]);
    assert_eq!(
        (config.sip.calls_max, config.sip.calls_per_second_max),
        (None, None)
    );
    assert!(config.routes.is_empty());
    assert!(!config.recording.early_media);
    assert_eq!(config.calls_fitting_ports(), 4096);
}

#[test]
fn three_lines_are_a_working_configuration() {
    let text = "[[route]]\nnext = \"sip:127.0.0.1:5070\"\nrecord = true\n";
    let config = Config::parse(text, "test.toml").unwrap();
    let [route] = &config.routes[..] else {
        panic!("one route")
    };
    assert_eq!(route.record, Record::Yes);
    assert_eq!(route.name, "route 1");
    assert_eq!(
        (route.connect_timeout_ms, route.ring_timeout_s),
        (4000, 120)
    );
    let [group] = &route.next[..] else {
        panic!("one group")
    };
    let [Next::Target(target)] = &group[..] else {
        panic!("a target")
    };
    assert_eq!(target.host, Host::Address("127.0.0.1".parse().unwrap()));
    assert_eq!(
        (target.port, target.transport),
        (Some(5070), Transport::Udp)
    );
    assert!(route.matches("anyone", "anybody", |_| [""; 0]));
}

#[test]
fn every_default_of_the_contract_may_be_written_out() {
    let text = r#"
data_dir = "trunkline-data"
drain_timeout_s = 5
[dataplane]
backend = "uring"
cores = "auto"
idle = "park"
address = "127.0.0.1"
advertise = ""
ports = "16384-32767"
[control]
http = "127.0.0.1:8080"
token = ""
token_file = ""
tls_certificate = ""
tls_key = ""
[sip]
listen = ["udp:127.0.0.1:5060", "tcp:127.0.0.1:5060"]
allow = ["127.0.0.0/8", "::1/128"]
nat = false
emergency = ["112", "911", "urn:service:sos"]
[[route]]
next = "sip:127.0.0.1:5070"
record = false
on_recording_failure = "continue"
recording_grace_s = 5
reroute_on = [408, 500, 502, 503, 504]
headers = "default"
codecs = []
transfer = "handle"
auth = "pass"
connect_timeout_ms = 4000
ring_timeout_s = 120
capture_headers = []
[recording]
writer = "extent"
early_media = false
dtmf = "keep"
hash_chain = true
key_file = ""
"#;
    assert_eq!(errors(text), []);
}

#[test]
fn unknown_keys_are_named_with_line_and_hint() {
    refused(
        "\ndata_dri = \"x\"",
        2,
        "data_dri",
        "did you mean \"data_dir\"",
    );
    refused(
        "[sip]\nlistn = []",
        2,
        "sip.listn",
        "did you mean \"listen\"",
    );
    refused(
        "[[route]]\nnext = \"request\"\n\nrecrod = true",
        4,
        "route.recrod",
        "unknown key",
    );
    refused("[telephony]\nx = 1", 1, "telephony", "unknown key");
    refused(
        "[[interface]]\nname = \"a\"\nadress = \"::1\"",
        3,
        "interface.adress",
        "address",
    );
}

#[test]
fn wrong_types_and_values_are_named() {
    refused(
        "drain_timeout_s = \"5\"",
        1,
        "drain_timeout_s",
        "an integer, not a string",
    );
    refused(
        "drain_timeout_s = -1",
        1,
        "drain_timeout_s",
        "between 0 and",
    );
    refused("data_dir = \"\"", 1, "data_dir", "empty");
    refused(
        &format!("data_dir = \"{}\"", "d".repeat(90)),
        1,
        "data_dir",
        "2 bytes too long",
    );
    refused("dataplane = 3", 1, "dataplane", "a table, not an integer");
    refused("[route]\nrecord = true", 1, "route", "[[route]]");
    refused("[sip]\nnat = \"yes\"", 2, "sip.nat", "true or false");
    refused("[sip]\ncalls_max = 0", 2, "sip.calls_max", "between 1 and");
    refused("[sip]\ncalls_max = 5000", 2, "sip.calls_max", "do not fit");
    refused(
        "[sip]\nallow = [\n  \"10.0.0.0/8\",\n  \"10.0.0.0/33\"]",
        4,
        "sip.allow",
        "neither",
    );
    refused(
        "[sip]\nlisten = [\"udp:127.0.0.1\"]",
        2,
        "sip.listen",
        "ADDRESS:PORT",
    );
    refused(
        "[sip]\nlisten = [\"127.0.0.1:5060\"]",
        2,
        "sip.listen",
        "unknown transport",
    );
    refused("[sip]\nlisten = []", 1, "sip.listen", "at least one");
    refused(
        "[dataplane]\nports = \"9000\"",
        2,
        "dataplane.ports",
        "FIRST-LAST",
    );
    refused(
        "[dataplane]\nports = \"9000-8000\"",
        2,
        "dataplane.ports",
        "above the last",
    );
    refused(
        "[dataplane]\nports = \"9000-9002\"",
        2,
        "dataplane.ports",
        "no room",
    );
    refused(
        "[dataplane]\nports = \"1-70000\"",
        2,
        "dataplane.ports",
        "port range",
    );
    refused(
        "[dataplane]\nbackend = \"epoll\"",
        2,
        "dataplane.backend",
        "is not one of",
    );
    refused("[dataplane]\ncores = [1, 1]", 2, "dataplane.cores", "twice");
    refused("[dataplane]\ncores = []", 2, "dataplane.cores", "1 to 64");
    refused(
        "[dataplane]\naddress = \"localhost\"",
        2,
        "dataplane.address",
        "no IP address",
    );
    refused(
        "[[route]]\nuser = \"(\"",
        2,
        "route.user",
        "regular expression",
    );
    refused(
        "[[route]]\nheader = { \"X-Queue\" = \"[\" }",
        2,
        "route.header.X-Queue",
        "regular expression",
    );
    refused(
        "[[route]]\nheader = { \"X Queue\" = \"a\" }",
        2,
        "route.header.X Queue",
        "header name",
    );
    refused("[[route]]\nnext = \"pbx\"", 2, "route.next", "no target");
    refused(
        "[[route]]\nnext = [\"record\", \"request\"]",
        2,
        "route.next",
        "stands alone",
    );
    refused("[[route]]\nrecord = 1", 2, "route.record", "true, false");
    refused(
        "[recording]\nsegment_bytes = 2000000",
        2,
        "recording.segment_bytes",
        "multiple of 4096",
    );
}

#[test]
fn defined_but_unbuilt_keys_say_so() {
    for (text, line, key) in [
        ("[dataplane]\nbackend = \"dpdk\"", 2, "dataplane.backend"),
        ("[dataplane]\nbackend = \"xdp\"", 2, "dataplane.backend"),
        (
            "[control]\ntls_certificate = \"c.pem\"",
            2,
            "control.tls_certificate",
        ),
        ("[sip]\nlisten = [\"tls:127.0.0.1:5061\"]", 2, "sip.listen"),
        ("[[trunk]]\nname = \"carrier\"", 1, "trunk"),
        (
            "[[recorder]]\nname = \"main\"\nservers = [\"sip:a\"]\nmedia = \"srtp\"",
            4,
            "recorder.media",
        ),
        ("[[route]]\nfrom = [\"carrier\"]", 2, "route.from"),
        ("[[route]]\nnext = \"trunk:carrier\"", 2, "route.next"),
        ("[[route]]\nnext = \"registered\"", 2, "route.next"),
        ("[[route]]\nauth = \"answer\"", 2, "route.auth"),
    ] {
        refused(text, line, key, "not supported yet");
    }
}

#[test]
fn all_errors_come_at_once_in_file_order() {
    let text = "drain_timeout_s = true\n[sip]\nallow = \"all\"\nlisten = [\"udp:x\"]\n[[route]]\nnext = 5\nfoo = 1\n";
    let keys: Vec<String> = errors(text).into_iter().map(|error| error.key).collect();
    assert_eq!(
        keys,
        [
            "drain_timeout_s",
            "sip.allow",
            "sip.listen",
            "route.next",
            "route.foo"
        ]
    );
}

#[test]
fn broken_toml_is_placed_too() {
    let found = errors("[sip]\nnat = \n");
    assert_eq!(found.first().map(|error| error.line), Some(2), "{found:?}");
    refused("[sip]\nnat = true\nnat = false", 3, "nat", "duplicate key");
}

#[test]
fn values_are_held_against_each_other() {
    refused(
        "[dataplane]\naddress = \"0.0.0.0\"",
        1,
        "dataplane.address",
        "advertise",
    );
    refused(
        "[dataplane]\naddress = \"224.0.0.1\"",
        1,
        "dataplane.address",
        "multicast",
    );
    refused(
        "[dataplane]\nadvertise = \"::1\"",
        1,
        "dataplane.address",
        "different families",
    );
    refused(
        "[sip]\nlisten = [\"udp:127.0.0.1:20000\"]",
        2,
        "sip.listen",
        "media ports",
    );
    refused(
        "[sip]\nlisten = [\"tcp:127.0.0.1:8080\"]",
        2,
        "sip.listen",
        "control.http",
    );
    let twice = "[sip]\nlisten = [\"udp:127.0.0.1:5060\",\n\"udp:0.0.0.0:5060\"]";
    refused(twice, 3, "sip.listen", "twice");
    let overlap =
        "[[interface]]\nname = \"a\"\n[[interface]]\nname = \"b\"\nports = \"30000-40000\"";
    refused(
        overlap,
        3,
        "interface.address",
        "are also those of interface \"a\"",
    );
    let same = "[[interface]]\nname = \"a\"\n[[interface]]\nname = \"a\"\naddress = \"127.0.0.2\"";
    refused(
        same,
        3,
        "interface.address",
        "already has an address of this family",
    );
}

#[test]
fn http_beyond_loopback_takes_token_and_tls() {
    refused(
        "[control]\nhttp = \"0.0.0.0:8080\"",
        2,
        "control.http",
        "a token is missing",
    );
    refused(
        "[control]\ntoken = \"s\"\nhttp = \"192.0.2.1:8080\"",
        3,
        "control.http",
        "TLS",
    );
    assert_eq!(errors("[control]\nhttp = \"[::1]:8080\""), []);
}

#[test]
fn a_token_comes_from_either_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "secret-1\n").unwrap();
    let path = path.display();
    let config =
        Config::parse(&format!("[control]\ntoken_file = \"{path}\""), "test.toml").unwrap();
    assert_eq!(config.control.token.as_deref(), Some("secret-1"));
    assert!(!format!("{config:?}").contains("secret-1"));
    let both = format!("[control]\ntoken = \"a\"\ntoken_file = \"{path}\"");
    refused(&both, 3, "control.token_file", "not both");
    refused(
        "[control]\ntoken_file = \"/nonexistent/token\"",
        2,
        "control.token_file",
        "No such file",
    );
    refused(
        "[control]\ntoken = \"two words\"",
        2,
        "control.token",
        "visible ASCII",
    );
}

#[test]
fn interfaces_are_flattened_in_order() {
    let text = r#"
[dataplane]
address = "127.0.0.1"
[[interface]]
name = "carrier"
address = "127.0.0.2"
ports = "20000-20999"
[[interface]]
name = "carrier"
address = "::1"
advertise = "2001:db8::5"
ports = "20000-20999"
"#;
    let config = Config::parse(text, "test.toml").unwrap();
    let names: Vec<&str> = config
        .interfaces
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["default", "carrier", "carrier"]);
    assert_eq!(
        config.interface_for(None, "192.0.2.1".parse().unwrap()),
        Some(0)
    );
    assert_eq!(
        config.interface_for(Some("carrier"), "192.0.2.1".parse().unwrap()),
        Some(1)
    );
    assert_eq!(
        config.interface_for(None, "2001:db8::1".parse().unwrap()),
        Some(2)
    );
    assert_eq!(
        config.interface_for(None, "::ffff:192.0.2.1".parse().unwrap()),
        Some(0)
    );
    assert_eq!(config.interfaces[2].advertised().to_string(), "2001:db8::5");
    let only = Config::parse(
        "[[interface]]\nname = \"x\"\naddress = \"::1\"",
        "test.toml",
    )
    .unwrap();
    assert_eq!(only.interfaces.len(), 1);
}

#[test]
fn routes_match_by_user_caller_and_header() {
    let text = "[[route]]\nuser = \"\\\\+49[0-9]+\"\ncaller = \"alice\"\nheader = { X-Queue = \"^sales\" }";
    let config = Config::parse(text, "test.toml").unwrap();
    let route = &config.routes[0];
    let queue = |name: &str| {
        if name == "X-Queue" {
            vec!["other", "sales-de"]
        } else {
            vec![]
        }
    };
    assert!(route.matches("+49-30.1234", "alice", queue));
    assert!(route.matches("%2B4930", "alice", queue));
    assert!(!route.matches("+49301234x", "alice", queue));
    assert!(!route.matches("+4930", "alice2", queue));
    assert!(!route.matches("+4930", "alice", |_| vec!["support"]));
    assert!(!route.matches("+4930", "alice", |_| vec![]));
}

#[test]
fn targets_come_in_order_and_at_once() {
    let text = "[[route]]\nnext = [\"sip:a\", [\"sip:b\", \"sip:c\"], \"request\"]";
    let config = Config::parse(text, "test.toml").unwrap();
    let sizes: Vec<usize> = config.routes[0].next.iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 2, 1]);
    refused("[[route]]\nnext = []", 2, "route.next", "must name");
    refused("[[route]]\nnext = [[]]", 2, "route.next", "must name");
    refused(
        "[[route]]\nnext = [[[\"sip:a\"]]]",
        2,
        "route.next",
        "a string",
    );
}

#[test]
fn a_number_is_rewritten_by_the_groups_of_its_pattern() {
    let text = "[[route]]\nuser = \"0([1-9][0-9]*)\"\nrewrite = \"+49$1\"";
    let config = Config::parse(text, "test.toml").unwrap();
    let route = &config.routes[0];
    assert_eq!(route.rewritten("030-1234").as_deref(), Some("+49301234"));
    for (rewrite, words) in [
        ("$2", "no group 2"),
        ("$x", "number"),
        ("a@b", "'@'"),
        ("", "empty"),
    ] {
        let text = format!("[[route]]\nuser = \"0(.*)\"\nrewrite = \"{rewrite}\"");
        refused(&text, 3, "route.rewrite", words);
    }
}

#[test]
fn what_reroutes_and_which_headers_cross_is_judged() {
    let text = r#"
[[route]]
reroute_on = [404, 503]
transfer = "refuse"
codecs = ["PCMA", "opus"]
capture_headers = ["X-Account"]
tenant = "acme"
headers = { preset = "strict", pass = ["X-Account"], drop = ["Subject"], set = { "X-Via" = "us" } }
"#;
    let config = Config::parse(text, "test.toml").unwrap();
    let route = &config.routes[0];
    assert_eq!(route.reroute_on, [404, 503]);
    assert_eq!(route.transfer, Transfer::Refuse);
    assert_eq!(route.tenant.as_deref(), Some("acme"));
    let policy = &route.header_policy;
    assert!(policy.crosses("x-account") && policy.crosses("P-Asserted-Identity"));
    assert!(!policy.crosses("X-Other") && !policy.crosses("subject") && !policy.crosses("Via"));
    assert_eq!(policy.set, [("X-Via".to_owned(), "us".to_owned())]);
    let named = Config::parse("[[route]]\nheaders = \"none\"", "test.toml").unwrap();
    assert!(!named.routes[0].header_policy.crosses("Subject"));
    for (line, key, words) in [
        ("reroute_on = [486]", "route.reroute_on", "person"),
        ("reroute_on = [200]", "route.reroute_on", "between"),
        ("headers = \"foo\"", "route.headers", "not one of"),
        (
            "headers = { pass = [\"Via\"] }",
            "route.headers.pass",
            "ours",
        ),
        (
            "headers = { set = { \"X\" = \"a\\nb\" } }",
            "route.headers.set.X",
            "line",
        ),
        ("headers = { x = 1 }", "route.headers.x", "unknown key"),
        ("transfer = \"maybe\"", "route.transfer", "not one of"),
        ("codecs = [\"a b\"]", "route.codecs", "no codec name"),
        (
            "capture_headers = [\"a b\"]",
            "route.capture_headers",
            "no header name",
        ),
    ] {
        refused(&format!("[[route]]\n{line}"), 2, key, words);
    }
}

#[test]
fn sources_and_emergencies_are_judged() {
    let sip = Config::default().sip;
    assert!(sip.allows("127.0.0.9".parse().unwrap()));
    assert!(sip.allows("::ffff:127.0.0.9".parse().unwrap()));
    assert!(!sip.allows("192.0.2.1".parse().unwrap()));
    assert!(sip.is_emergency("112") && sip.is_emergency("1-1-2"));
    assert!(sip.is_emergency("urn:service:sos.fire") && sip.is_emergency("URN:service:sos"));
    assert!(!sip.is_emergency("urn:service:sosx") && !sip.is_emergency("1120"));
    let nobody = Config::parse("[sip]\nallow = []", "test.toml").unwrap();
    assert!(!nobody.sip.allows("127.0.0.1".parse().unwrap()));
}

#[test]
fn a_file_that_is_not_there_is_an_error_that_names_it() {
    let error = Config::load(std::path::Path::new("/nonexistent/trunkline.toml")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("/nonexistent/trunkline.toml: cannot be read: "),
        "{error}"
    );
}

#[test]
fn call_detail_records_are_configured() {
    let config = Config::parse("", "test.toml").unwrap().cdr;
    assert_eq!((config.node, config.interim_minutes), (None, 15));
    assert_eq!((config.rotate_bytes, config.rotate_hours), (64 << 20, 24));
    let text =
        "[cdr]\nnode = \"edge-1\"\ninterim_minutes = 0\nrotate_bytes = 65536\nrotate_hours = 1\n";
    let config = Config::parse(text, "test.toml").unwrap().cdr;
    assert_eq!(config.node.as_deref(), Some("edge-1"));
    assert_eq!(
        (
            config.interim_minutes,
            config.rotate_bytes,
            config.rotate_hours
        ),
        (0, 65_536, 1)
    );
    refused("[cdr]\nnode = \" \"", 2, "cdr.node", "empty");
    refused("[cdr]\nrotate_bytes = 1", 2, "cdr.rotate_bytes", "65536");
    refused("[cdr]\ninterim = 1", 2, "cdr.interim", "unknown key");
}

#[test]
fn name_servers_and_limits_of_a_source_are_off_unless_written() {
    let plain = Config::parse("", "test.toml").unwrap().sip;
    assert!(plain.nameservers.is_empty());
    let limits = [plain.source_calls_max, plain.ban_after];
    assert_eq!(limits, [None, None]);
    assert_eq!(plain.source_calls_per_second_max, None);
    assert_eq!((plain.ban_window_s, plain.ban_s), (60, 600));
    let text = "[sip]\nnameservers = [\"192.0.2.53\", \"[2001:db8::53]:5353\"]\n\
                source_calls_max = 5\nsource_calls_per_second_max = 2\nban_after = 20\n\
                ban_window_s = 30\nban_s = 90\n";
    let sip = Config::parse(text, "test.toml").unwrap().sip;
    let servers: Vec<String> = sip.nameservers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["192.0.2.53:53", "[2001:db8::53]:5353"]);
    assert_eq!(
        (sip.source_calls_max, sip.source_calls_per_second_max),
        (Some(5), Some(2))
    );
    assert_eq!(
        (sip.ban_after, sip.ban_window_s, sip.ban_s),
        (Some(20), 30, 90)
    );
    for (line, says) in [
        ("nameservers = [\"ns.example\"]", "neither ADDRESS"),
        ("ban_after = 0", "sip.ban_after"),
        ("ban_s = \"long\"", "sip.ban_s"),
        ("source_calls_max = -1", "sip.source_calls_max"),
    ] {
        let error = Config::parse(&format!("[sip]\n{line}\n"), "test.toml").unwrap_err();
        assert!(error.to_string().contains(says), "{line}: {error}");
    }
}
