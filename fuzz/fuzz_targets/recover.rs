#![no_main]
use libfuzzer_sys::fuzz_target;
use trunkline_sn3::Keys;
use trunkline_sn3::recover::{Finished, Image, Rescue, finish_leftover, rescue};
use trunkline_sn3::verify::verify;

// A segment that a crash left, and the memory of the process that wrote it.
fuzz_target!(|bytes: &[u8]| {
    let directory = std::env::temp_dir().join(format!("fuzz-recover-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join("w0-00000001.sn3s");
    std::fs::write(&path, bytes).expect("written");
    if let Ok(Finished::Recovered { .. }) = finish_leftover(&path, &Keys::none()) {
        let report = verify(&path).expect("a segment");
        assert!(report.is_whole(), "{:?}", report.damages);
    }
    let images: Vec<Image> = bytes
        .chunks(16_384)
        .map(|bytes| Image {
            worker: 0,
            bytes: bytes.to_vec(),
        })
        .collect();
    let how = Rescue {
        epoch: 1,
        chained: true,
        ..Rescue::default()
    };
    if let Ok(rescued) = rescue(&directory, &images, &how) {
        for one in rescued {
            let name = format!("w0-{:08}.sn3s", one.segment);
            assert!(verify(&directory.join(name)).expect("a segment").is_whole());
        }
    }
});
