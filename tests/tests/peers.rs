//! The peers by themselves, without anything between: so that what fails elsewhere is not them.

use std::path::Path;
use std::time::Duration;

use trunkline_tests::pcap::{noise, read, write};
use trunkline_tests::scenario::{Scenario, audio};
use trunkline_tests::sipp::{BUNDLED_PCAP, Sipp, SippSetup};
use trunkline_tests::sound::{assert_contains, decode};
use trunkline_tests::{baresip, installed, is_root, skip};

#[test]
fn sipp_calls_sipp_with_sound() {
    if !installed("sipp") || !is_root() {
        return skip(
            "sipp_calls_sipp_with_sound",
            "needs sipp and root (raw sockets)",
        );
    }
    let folder = tempfile::tempdir().expect("a folder");
    let sound = folder.path().join("noise.pcap");
    write(&sound, &noise(8, 50, 1));
    let callee = Scenario::callee("bob")
        .expect_invite()
        .respond("180 Ringing", "")
        .respond("200 OK", &audio(8))
        .expect_request("ACK")
        .play(&sound)
        .pause_ms(1500)
        .bye_as_callee()
        .expect(200);
    let callee = Sipp::start(folder.path(), SippSetup::new("callee", callee), None, "bob");
    let caller = Scenario::caller("alice")
        .invite(&audio(8))
        .may_get(100)
        .may_get(180)
        .expect(200)
        .request("ACK")
        .play(&sound)
        .expect_request("BYE")
        .respond_in_dialog("200 OK", "");
    let caller = SippSetup::new("caller", caller);
    Sipp::start(folder.path(), caller, Some(callee.port), "bob").finish();
    callee.finish();
}

#[test]
fn the_bundled_pcap_is_readable() {
    if !Path::new(BUNDLED_PCAP).is_file() {
        return skip(
            "the_bundled_pcap_is_readable",
            "sip-tester is not installed",
        );
    }
    let packets = read(Path::new(BUNDLED_PCAP));
    assert_eq!(packets.len(), 236);
    assert_eq!(decode(&packets).len(), 236 * 240);
}

#[test]
fn baresip_calls_baresip_with_sound() {
    if !baresip::possible() {
        return skip(
            "baresip_calls_baresip_with_sound",
            "baresip is not installed",
        );
    }
    let folder = tempfile::tempdir().expect("a folder");
    // Noise of values that PCMU keeps exactly, so that it can be found again.
    let (mine, yours) = (decode(&noise(0, 400, 3)), decode(&noise(0, 400, 4)));
    let mut callee = baresip::Baresip::start(folder.path(), "callee", "PCMU", &yours, None);
    let uri = format!("sip:callee@127.0.0.1:{}", callee.port);
    let mut caller = baresip::Baresip::start(folder.path(), "caller", "PCMU", &mine, Some(&uri));
    std::thread::sleep(Duration::from_secs(3));
    caller.quit();
    callee.quit();
    assert_contains("the callee", &callee.heard(), &mine[800..8800]);
    assert_contains("the caller", &caller.heard(), &yours[800..8800]);
}
