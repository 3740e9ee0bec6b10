#![no_main]
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for call in trunkline_pcap::find_calls(bytes).into_iter().flatten() {
        let _ = call.legs_at(call.invited_ns);
        let _ = call.legs_at(u64::MAX);
    }
});
