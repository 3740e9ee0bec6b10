//! The demonstration, in its small form.

use std::process::Command;

use trunkline_tests::binaries::binary;

/// Two appliances: what the second one recorded over SIPREC is sample by sample what the first one did.
#[test]
fn calls_recorded_here_and_over_siprec_sound_the_same() {
    let folder = tempfile::Builder::new()
        .prefix("trunkline-demo")
        .tempdir()
        .expect("a folder");
    let output = Command::new(binary("trunkline"))
        .args(["demo", "--siprec", "--calls", "3", "--out"])
        .arg(folder.path())
        .output()
        .expect("trunkline runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{out}\n{err}");
    let last = out.lines().last().unwrap_or_default();
    assert!(last.starts_with("demo: 3 calls, relayed "), "{last}");
    let sum = ", lost 0, recorded 3, by SIPREC 3, WAVs equal 3; WAV in ";
    assert!(last.contains(sum), "{last}");
}
