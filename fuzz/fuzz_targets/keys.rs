#![no_main]
use libfuzzer_sys::fuzz_target;
use trunkline_sn3::Keys;
use trunkline_sn3::cipher::MasterKey;
use trunkline_sn3::keys::{erase_keys, rewrap};

// A file of wrapped data keys, and a file of master keys.
fuzz_target!(|bytes: &[u8]| {
    let directory = std::env::temp_dir().join(format!("fuzz-keys-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let slots = directory.join("keys-00000001.sn3k");
    std::fs::write(&slots, bytes).expect("written");
    let keys = Keys::new(vec![MasterKey::from_bytes(&[7; 32])]);
    let _ = keys.find(&directory, 1);
    let _ = rewrap(&directory, &keys);
    let _ = erase_keys(&directory, &[1].into());
    let _ = Keys::load(Some(slots.as_path()));
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = keys.unwrap(text);
    }
});
