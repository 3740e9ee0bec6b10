//! What parties hear of being recorded.

use super::*;

#[test]
fn what_parties_hear_is_judged_with_its_route() {
    let route = |keys: &str| format!("[[route]]\nrecord = true\n{keys}\n");
    let sound = |keys: &str| {
        let config = Config::parse(&route(keys), "test.toml").unwrap();
        let indication = config.routes[0].indication.clone();
        indication.map(|one| (one.sound, one.to, one.mode))
    };
    assert_eq!(sound(""), None);
    assert_eq!(sound("indication = \"none\""), None);
    let usual = Tone {
        hz: 1400,
        ms: 400,
        every_s: 15,
    };
    let both = [true, true];
    let heard = sound("indication = \"tone\"");
    assert_eq!(
        heard,
        Some((Sound::Tone(usual), both, IndicationMode::Insert))
    );
    let heard = sound(
        "indication = \"tone\"\ntone = { hz = 440, every_s = 2 }\n\
         indication_to = \"callee\"\nindication_mode = \"mix\"",
    );
    let tone = Tone {
        hz: 440,
        every_s: 2,
        ..usual
    };
    let expected = (Sound::Tone(tone), [false, true], IndicationMode::Mix);
    assert_eq!(heard, Some(expected));
    let heard = sound("indication = \"announcement\"\nannouncement = \"a.wav\"");
    assert_eq!(heard.unwrap().0, Sound::Announcement("a.wav".into()));
    for (keys, line, key, words) in [
        (
            "indication = \"beep\"",
            3,
            "route.indication",
            "is not one of",
        ),
        (
            "indication = \"announcement\"",
            3,
            "route.indication",
            "must name a WAV file",
        ),
        (
            "announcement = \"a.wav\"",
            3,
            "route.announcement",
            "no use without",
        ),
        (
            "indication = \"none\"\ntone = { hz = 440 }",
            4,
            "route.tone",
            "no use without",
        ),
        (
            "indication_to = \"caller\"",
            3,
            "route.indication_to",
            "no use without",
        ),
        (
            "indication_mode = \"mix\"",
            3,
            "route.indication_mode",
            "no use without",
        ),
        (
            "indication = \"tone\"\ntone = 440",
            4,
            "route.tone",
            "must be a table",
        ),
        (
            "indication = \"tone\"\ntone = { hz = 9000 }",
            4,
            "route.tone.hz",
            "between 300 and 3400",
        ),
        (
            "indication = \"tone\"\ntone = { pitch = 1 }",
            4,
            "route.tone.pitch",
            "unknown key",
        ),
        (
            "indication = \"tone\"\ntone = { ms = 2000, every_s = 1 }",
            4,
            "route.tone",
            "longer than the tone",
        ),
        (
            "indication = \"tone\"\nindication_to = \"all\"",
            4,
            "route.indication_to",
            "is not one of",
        ),
        (
            "indication = \"tone\"\nindication_mode = \"add\"",
            4,
            "route.indication_mode",
            "is not one of",
        ),
    ] {
        refused(&route(keys), line, key, words);
    }
}

/// A WAV file of PCM.
fn wav(rate_hz: u32, channels: u16, bits: u16, samples: u32) -> Vec<u8> {
    let bytes = samples * u32::from(channels) * u32::from(bits) / 8;
    let frame = channels * bits / 8;
    let mut file = b"RIFF".to_vec();
    file.extend((36 + bytes).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0");
    file.extend(channels.to_le_bytes());
    file.extend(rate_hz.to_le_bytes());
    file.extend((rate_hz * u32::from(frame)).to_le_bytes());
    file.extend(frame.to_le_bytes());
    file.extend(bits.to_le_bytes());
    file.extend(b"data");
    file.extend(bytes.to_le_bytes());
    file.extend((0..bytes).map(|n| (n % 4) as u8));
    file
}

#[test]
fn the_file_of_an_announcement_is_checked_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.wav");
    let text = format!("[[route]]\nindication = \"announcement\"\nannouncement = {path:?}\n");
    let complaint = |file: Option<Vec<u8>>| {
        match file {
            Some(bytes) => std::fs::write(&path, bytes).unwrap(),
            None => drop(std::fs::remove_file(&path)),
        }
        let checked = Config::parse(&text, "test.toml").unwrap().check_files();
        let errors = checked.err()?.0;
        assert_eq!((errors.len(), errors[0].line), (1, 3));
        assert_eq!(errors[0].key, "route.announcement");
        Some(errors[0].message.clone())
    };
    let cut = wav(8_000, 1, 16, 800)[..400].to_vec();
    for (file, words) in [
        (None, "No such file"),
        (Some(b"nonsense".to_vec()), "a.wav"),
        (Some(wav(11_025, 1, 16, 800)), "11025 Hz is not one of"),
        (Some(wav(8_000, 1, 8, 800)), "16 bits"),
        (Some(wav(8_000, 3, 16, 800)), "one or two channels"),
        (Some(wav(8_000, 1, 16, 0)), "no sound"),
        (Some(wav(8_000, 1, 16, 61 * 8_000)), "longer than 60 s"),
        (Some(cut), "a.wav"),
    ] {
        let said = complaint(file).unwrap();
        assert!(said.contains(words), "{said}");
    }
    assert_eq!(complaint(Some(wav(48_000, 2, 16, 4_800))), None);
    let read = trunkline_config::read_announcement(&path).unwrap();
    assert_eq!((read.rate_hz, read.samples.len()), (48_000, 4_800));
    // 0x0100 and 0x0302, averaged.
    assert_eq!(read.samples[0], 0x0201);
}
