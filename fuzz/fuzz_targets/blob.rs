#![no_main]
use libfuzzer_sys::fuzz_target;
use trunkline_audio::{Options, Plan, write_wav};
use trunkline_sn3::Capture;

fuzz_target!(|bytes: &[u8]| {
    let Ok(capture) = Capture::from_bytes(bytes.to_vec(), "fuzz".as_ref()) else {
        return;
    };
    let _ = capture.export(std::io::sink());
    let Ok(plan) = Plan::new(&capture, &Options::default()) else {
        return;
    };
    if plan.samples() < 1_000_000 {
        let mut wav = Vec::new();
        if write_wav(&capture, &plan, &mut wav, &mut |_, _| true).is_ok() {
            assert_eq!(wav.len() as u64, plan.wav_bytes());
        }
    }
});
