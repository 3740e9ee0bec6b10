//! baresip as a user agent without a sound card: it plays a WAV and keeps what it hears.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::ports::{free_media_port, free_port};
use crate::process::Process;

/// Where Debian keeps its modules.
const MODULES: &str = "/usr/lib/baresip/modules";

/// A running baresip.
#[derive(Debug)]
pub struct Baresip {
    process: Process,
    folder: PathBuf,
    /// Its SIP port.
    pub port: u16,
}

/// Whether it is installed with what it needs.
#[must_use]
pub fn possible() -> bool {
    let has = |module: &str| Path::new(MODULES).join(module).is_file();
    crate::installed("baresip")
        && ["g711.so", "aufile.so", "aubridge.so", "sndfile.so"]
            .into_iter()
            .all(has)
}

impl Baresip {
    /// Starts one that answers every call, or dials `uri`, and says `sound` (8 kHz, mono).
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start(
        parent: &Path,
        name: &str,
        codec: &str,
        sound: &[i16],
        dial: Option<&str>,
    ) -> Self {
        let folder = parent.join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let (port, media) = (free_port(), free_media_port());
        write_wav(&folder.join("say.wav"), sound);
        let path = folder.display();
        let config = format!(
            "poll_method epoll\nsip_listen 127.0.0.1:{port}\naudio_path {path}\n\
             audio_source aufile,{path}/say.wav\naudio_player aubridge,nowhere\n\
             audio_alert aubridge,alert\nausrc_srate 8000\nauplay_srate 8000\nausrc_channels 1\n\
             auplay_channels 1\nausrc_format s16\nauplay_format s16\nauenc_format s16\n\
             audec_format s16\naudio_buffer 20-160\nrtp_ports {media}-{}\nrtcp_mux no\n\
             jitter_buffer_type fixed\njitter_buffer_delay 1-10\nnet_interface 127.0.0.1\n\
             module_path {MODULES}\nmodule g711.so\nmodule aufile.so\nmodule aubridge.so\n\
             module sndfile.so\nsnd_path {path}\nmodule_tmp account.so\nmodule_app menu.so\n",
            media + 3
        );
        std::fs::write(folder.join("config"), config).expect("a config");
        let account = format!(
            "<sip:{name}@127.0.0.1:{port}>;regint=0;answermode=auto;audio_codecs={codec}/8000/1\n"
        );
        std::fs::write(folder.join("accounts"), account).expect("an account");
        std::fs::write(folder.join("contacts"), "").expect("contacts");
        let log = File::create(folder.join("log")).expect("a log");
        let mut command = Command::new("baresip");
        command.arg("-f").arg(&folder);
        if let Some(uri) = dial {
            command.args(["-e", &format!("/dial {uri}")]);
        }
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        let process = Process::start(name, &mut command);
        let baresip = Self {
            process,
            folder,
            port,
        };
        crate::process::eventually("baresip is ready", Duration::from_secs(10), || {
            baresip.log().contains("baresip is ready").then_some(())
        });
        baresip
    }

    /// What it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        let log = std::fs::read(self.folder.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Ends it; it hangs up first.
    pub fn quit(&mut self) {
        self.process.signal(Signal::SIGTERM);
        self.process.wait(Duration::from_secs(10));
    }

    /// What it heard, once it has quit.
    ///
    /// # Panics
    /// It kept nothing.
    #[must_use]
    pub fn heard(&self) -> Vec<i16> {
        self.dump("dec")
    }

    /// What it said, before it was coded.
    ///
    /// # Panics
    /// It kept nothing.
    #[must_use]
    pub fn said(&self) -> Vec<i16> {
        self.dump("enc")
    }

    fn dump(&self, kind: &str) -> Vec<i16> {
        let files = std::fs::read_dir(&self.folder).expect("its folder");
        let path = files
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().ends_with(&format!("-{kind}.wav")))
            .unwrap_or_else(|| panic!("baresip kept nothing:\n{}", self.log()));
        let mut reader = hound::WavReader::open(path).expect("a WAV");
        reader
            .samples()
            .map(|sample| sample.expect("a sample"))
            .collect()
    }
}

fn write_wav(path: &Path, sound: &[i16]) {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: 8000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).expect("a WAV");
    for &sample in sound {
        writer.write_sample(sample).expect("a sample");
    }
    writer.finalize().expect("a WAV");
}
