//! Threads that must not hold up signalling.

/// What signalling's threads have more of (`nice`).
const NICE: i32 = 10;

/// Lets the threads of signalling go before the calling one where they share a core. Where the system
/// refuses it, they take turns.
pub(crate) fn give_way() {
    // On Linux this is of the thread alone.
    let _ = rustix::process::nice(NICE);
}
