//! A call that went through is explained, message by message.

use std::process::Command;
use std::time::Duration;

use trunkline_tests::Appliance;
use trunkline_tests::appliance::Setup;
use trunkline_tests::binaries::binary;
use trunkline_tests::ports::free_port;
use trunkline_tests::rtpgen::{Rtpgen, assert_ok};

/// Output of a command that must succeed.
fn output(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_call_is_explained_and_its_signalling_opens_in_tshark() {
    let port = free_port();
    let appliance = Appliance::start(&Setup::to_port(port));
    let arguments = ["--calls", "1", "--duration", "3"];
    let run = Rtpgen::start(appliance.folder(), appliance.sip_port, port, &arguments);
    assert_ok(&run.finish(Duration::from_secs(60)));
    let recordings = appliance.api.wait_for_recordings(1);
    let id = recordings[0]["call_id"].as_str().expect("a call");
    let file = appliance.folder().join("call.pcapng");
    let mut explain = Command::new(binary("trunkline"));
    explain.args(["explain", id, "--config"]);
    explain.arg(appliance.folder().join("trunkline.toml"));
    let text = output(explain.arg("--pcapng").arg(&file));
    let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
    assert_eq!(count("INVITE sip:"), 2, "one a leg:\n{text}");
    assert_eq!(count("200 OK (1 INVITE)"), 2, "{text}");
    assert_eq!(count("BYE sip:"), 2, "{text}");
    assert_eq!(count("caller first_rtp"), 1, "{text}");
    assert_eq!(count("callee first_rtp"), 1, "{text}");
    assert_eq!(count("call.answered"), 1, "{text}");
    let invite = text.find("INVITE sip:").expect("an INVITE");
    assert!(
        invite < text.find("BYE sip:").expect("a BYE"),
        "in order:\n{text}"
    );
    assert_eq!(count("bridged"), 2, "as an event and in the media:\n{text}");
    let ours = appliance.sip_port.to_string();
    let addresses = output(Command::new("tshark").arg("-r").arg(&file).args([
        "-Y",
        "sip.Method == \"INVITE\"",
        "-T",
        "fields",
        "-E",
        "separator=,",
        "-e",
        "exported_pdu.ipv4_src",
        "-e",
        "exported_pdu.src_port",
        "-e",
        "exported_pdu.ipv4_dst",
        "-e",
        "exported_pdu.dst_port",
    ]));
    let ways: Vec<Vec<&str>> = addresses
        .lines()
        .map(|line| line.split(',').collect())
        .collect();
    assert_eq!(ways.len(), 2, "{addresses}");
    assert_eq!(
        (ways[0][0], &ways[0][2..]),
        ("127.0.0.1", &["127.0.0.1", ours.as_str()][..])
    );
    let far = port.to_string();
    assert_eq!(
        ways[1],
        ["127.0.0.1", ours.as_str(), "127.0.0.1", far.as_str()]
    );
    let methods = output(Command::new("tshark").arg("-r").arg(&file).args([
        "-Y",
        "sip",
        "-T",
        "fields",
        "-e",
        "sip.Method",
    ]));
    let requests = |method: &str| methods.lines().filter(|line| *line == method).count();
    assert_eq!(
        (requests("INVITE"), requests("ACK"), requests("BYE")),
        (2, 2, 2),
        "{methods}"
    );
}
