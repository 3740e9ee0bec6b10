//! The sn3 command as its users meet it: what it prints, what it writes, how it ends.

mod common;

use common::audio::*;
use common::*;

#[test]
fn every_command_has_help_with_an_example_and_wrong_usage_is_2() {
    for command in ["info", "wav", "pcap", "verify", "export", "plot", "import"] {
        let help = sn3(&[command, "--help"]).code(0);
        assert!(
            text(&help.get_output().stdout).contains("Example"),
            "{command}"
        );
    }
    assert!(text(&sn3(&["--help"]).code(0).get_output().stdout).contains("Example"));
    for wrong in [
        &["wav"][..],
        &["wav", "x.sn3"],
        &["wav", "x.sn3", "-o", "y.wav", "--codec", "nonsense"],
        &["wav", "x.sn3", "-o", "y.wav", "--rate", "7"],
        &["wav", "x.sn3", "-o", "y.wav", "--loud"],
        &["verify"],
        &["frobnicate"],
        &[],
    ] {
        sn3(wrong).code(2);
    }
}

#[test]
fn a_call_comes_out_with_the_caller_left_and_the_callee_right() {
    let (left, right, bytes) = two_way();
    let (_directory, file, out) = place(&bytes);
    sn3(&["wav", &file, "-o", &out.display().to_string()])
        .code(0)
        .stderr("");
    assert_eq!(wav(&out), (left, right));
    let written = sn3(&["wav", &file, "-o", "-"]).code(0);
    assert_eq!(written.get_output().stdout, std::fs::read(&out).unwrap());
}

#[test]
fn a_cut_file_gives_all_it_holds_and_names_the_place() {
    let (left, right, bytes) = two_way();
    // The last frame is cut in its payload: it began 177 bytes before the end.
    let cut = &bytes[..bytes.len() - 50];
    let (_directory, file, out) = place(cut);
    let result = sn3(&["wav", &file, "-o", &out.display().to_string()]).code(1);
    let message = text(&result.get_output().stderr);
    assert!(
        message.contains(&format!("byte {}", bytes.len() - 177)),
        "{message}"
    );
    let (got_left, got_right) = wav(&out);
    assert_eq!(got_left, left);
    assert_eq!(got_right[..right.len() - 160], right[..right.len() - 160]);
    sn3(&["info", &file]).code(1);
    sn3(&["verify", &file]).code(1);
}

#[test]
fn garbage_in_the_middle_costs_only_what_it_covers() {
    let (left, _, bytes) = two_way();
    let mut broken = bytes.clone();
    let at = 3 + 177 * 100;
    for (index, byte) in broken[at..at + 300].iter_mut().enumerate() {
        *byte = (index * 73 + 0xFB) as u8;
    }
    let (_directory, file, out) = place(&broken);
    let result = sn3(&["wav", &file, "-o", &out.display().to_string()]).code(1);
    let message = text(&result.get_output().stderr);
    assert!(message.contains(&format!("byte {at}")), "{message}");
    let (got, _) = wav(&out);
    assert_eq!(got.len(), left.len());
    assert_eq!(got[..7_900], left[..7_900]);
    assert_eq!(got[8_800..], left[8_800..]);
}

#[test]
fn what_is_no_capture_is_refused_with_byte_0() {
    for bytes in [&b""[..], b"RI", b"RIFFxxxx", &[0; 5_000]] {
        let (_directory, file, out) = place(bytes);
        let result = sn3(&["wav", &file, "-o", &out.display().to_string()]).code(1);
        assert!(text(&result.get_output().stderr).contains("byte 0"));
        assert!(!out.exists());
    }
    sn3(&["wav", "/nonexistent/call.sn3", "-o", "x.wav"]).code(1);
}

#[test]
fn loss_duplicates_reordering_and_foreign_frames_are_no_damage() {
    let spoken = speech(8_000, 3.0, 0);
    let mut packets = pcmu(0, &spoken, 0);
    packets.remove(20);
    packets.drain(60..70);
    packets.push(packets[5].clone());
    packets[80].wall_ns += 45 * MS;
    for dir in [2, 77, 255] {
        let mut foreign = packets[30].clone();
        foreign.dir = dir;
        foreign.payload = vec![1; 4_000];
        packets.push(foreign);
    }
    let (_directory, file, out) = place(&blob(packets));
    sn3(&["wav", &file, "-o", &out.display().to_string()])
        .code(0)
        .stderr("");
    sn3(&["verify", &file]).code(0);
    assert_eq!(wav(&out).0.len(), 24_000);
}

#[test]
fn a_codec_guessed_is_said_aloud_and_overridden() {
    let spoken = speech(16_000, 2.0, 0);
    let wide = packets(0, &spoken, 0, 320, 20 * MS, |frame| {
        frame
            .iter()
            .flat_map(|sample| sample.to_be_bytes())
            .collect()
    });
    let (_directory, file, out) = place(&blob(wide));
    let out_name = out.display().to_string();
    let result = sn3(&["wav", &file, "-o", &out_name]).code(0);
    let message = text(&result.get_output().stderr);
    assert!(
        message.contains("L16") && message.contains("16000"),
        "{message}"
    );
    assert_eq!(wav(&out).0, spoken);
    sn3(&[
        "wav",
        &file,
        "-o",
        &out_name,
        "--codec",
        "L16/16000",
        "--rate",
        "8000",
    ])
    .code(0);
    assert_eq!(wav(&out).0.len(), 16_000);
}

#[test]
fn info_tells_streams_losses_and_keys() {
    let spoken = speech(8_000, 3.0, 0);
    let mut packets = pcmu(0, &spoken, 0);
    packets.remove(20);
    let key = trunkline_codec::telephone_event::EventReport {
        event: 11,
        end: true,
        volume: 8,
        duration: 800,
    };
    packets[50].payload = key.encode().to_vec();
    let (_directory, file, _) = place(&blob(packets));
    let output = sn3(&["info", &file, "--json"]).code(0);
    let info: serde_json::Value = serde_json::from_slice(&output.get_output().stdout).unwrap();
    assert_eq!(info["duration_ms"], 3_000);
    let stream = &info["streams"][0];
    assert_eq!(
        (&stream["side"], &stream["lost"], &stream["expected"]),
        (&"caller".into(), &1.into(), &150.into())
    );
    assert_eq!(stream["codecs"][0]["codec"], "PCMU");
    assert_eq!(info["dtmf"][0]["key"], "#");
    assert_eq!(info["dtmf"][0]["duration_ms"], 100);
    let plain = sn3(&["info", &file]).code(0);
    let plain = text(&plain.get_output().stdout);
    assert!(
        plain.contains("1 lost") && plain.contains("dtmf"),
        "{plain}"
    );
}

#[test]
fn a_segment_with_several_recordings_is_listed_and_each_is_found() {
    let voices = [speech(8_000, 3.0, 0), speech(8_000, 2.0, 1)];
    let calls = voices.each_ref().map(|voice| {
        let mut call = Call::new(0, voice.len() as u64 * 125_000, pcmu(0, voice, 0));
        call.open.recording_id = format!("0190-{}", voice.len());
        call
    });
    let disk = trunkline_sn3::sim::SimDisk::new();
    let numbered = [(7, items(&calls[0])), (8, items(&calls[1]))];
    segments::one_segment(&disk, &numbered)
        .writer
        .finish(9)
        .unwrap();
    let directory = tempfile::tempdir().unwrap();
    disk.save(directory.path()).unwrap();
    let segment = directory
        .path()
        .join("w0-00000001.sn3s")
        .display()
        .to_string();
    let out = directory.path().join("call.wav");
    let out_name = out.display().to_string();
    let listed = sn3(&["wav", &segment, "-o", &out_name]).code(2);
    let listed = text(&listed.get_output().stderr);
    assert!(
        listed.contains("7  0190-24000") && listed.contains("8  0190-16000"),
        "{listed}"
    );
    sn3(&["info", &segment]).code(0);
    let directory_name = directory.path().display().to_string();
    for source in [&segment, &directory_name] {
        sn3(&["wav", source, "--recording", "8", "-o", &out_name])
            .code(0)
            .stderr("");
        assert_eq!(wav(&out).0, through_mu_law(&voices[1]));
        sn3(&["wav", source, "--recording", "0190-24000", "-o", &out_name]).code(0);
        assert_eq!(wav(&out).0, through_mu_law(&voices[0]));
        sn3(&["wav", source, "--recording", "9", "-o", &out_name]).code(1);
        sn3(&["wav", source, "--recording", "0190-9", "-o", &out_name]).code(1);
    }
    sn3(&["verify", &segment, &directory_name]).code(0);
    let exported = directory.path().join("call.sn3").display().to_string();
    sn3(&["export", &segment, "--recording", "7", "-o", &exported]).code(0);
    sn3(&["wav", &exported, "-o", &out_name]).code(0).stderr("");
    assert_eq!(wav(&out).0, through_mu_law(&voices[0]));
    assert_eq!(std::fs::read(&exported).unwrap()[..3], *b"SN3");
}

#[test]
fn tshark_decodes_the_pcap_as_rtp_without_being_told() {
    let have_tshark = std::process::Command::new("tshark")
        .arg("--version")
        .output()
        .is_ok();
    if !have_tshark {
        eprintln!("tshark is missing: not tested");
        return;
    }
    let (_, _, classic) = two_way();
    let mut packets = pcmu(0, &speech(8_000, 2.0, 0), 0);
    packets.remove(10);
    let exported = Call::new(0, 2_000 * MS, packets).bytes();
    for (bytes, count, sources) in [(classic, 300, 2), (exported, 99, 1)] {
        let (directory, file, _) = place(&bytes);
        let pcap = directory.path().join("call.pcap").display().to_string();
        sn3(&["pcap", &file, "-o", &pcap]).code(0);
        let fields = std::process::Command::new("tshark")
            .args([
                "-r",
                &pcap,
                "-Y",
                "rtp",
                "-T",
                "fields",
                "-o",
                "udp.check_checksum:TRUE",
            ])
            .args([
                "-e",
                "ip.src",
                "-e",
                "rtp.p_type",
                "-e",
                "rtp.seq",
                "-e",
                "udp.checksum.status",
            ])
            .output()
            .unwrap();
        let lines = text(&fields.stdout);
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines.len(), count);
        let callers: std::collections::BTreeSet<&str> = lines
            .iter()
            .filter_map(|line| line.split('\t').next())
            .collect();
        assert_eq!(callers.len(), sources);
        assert!(lines[0].starts_with("192.0.2.1\t0\t1000\t"), "{}", lines[0]);
        assert!(
            lines.iter().all(|line| line.ends_with("\t1")),
            "checksums are right"
        );
    }
}
