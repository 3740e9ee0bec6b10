//! What the harness shares with the worker bench: the loop that both compare with.
#![forbid(unsafe_code)]

pub mod bare_loop;
