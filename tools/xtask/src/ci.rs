//! `cargo xtask ci`: what must hold before a change lands.

use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::command::{self, cargo, exists, succeeds};

/// Options of `cargo xtask ci`.
#[derive(clap::Args)]
#[command(after_help = "Example: cargo xtask ci --skip-install")]
pub struct Options {
    /// Do not install anything; say what is missing.
    #[arg(long)]
    skip_install: bool,
}

/// A program the tests use, and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("gcc", "gcc"),
    ("sipp", "sip-tester"),
    ("baresip", "baresip-core"),
    ("kamailio", "kamailio"),
    ("tshark", "tshark"),
    ("ffmpeg", "ffmpeg"),
    ("sox", "sox"),
    ("xmllint", "libxml2-utils"),
    ("systemd-analyze", "systemd"),
    ("rtpengine", "rtpengine-daemon"),
    ("ethtool", "ethtool"),
    ("valgrind", "valgrind"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("python3", "python3"),
    ("openssl", "openssl"),
];

/// Runs every step in order and stops at the first that fails; says how long it took.
pub fn run(options: &Options) -> Result<()> {
    let start = Instant::now();
    let result = steps(options);
    println!("== ci took {} s", start.elapsed().as_secs());
    result
}

fn steps(options: &Options) -> Result<()> {
    install(options);
    command::run("formatting", &mut cargo(&["fmt", "--all", "--check"]))?;
    command::run(
        "lints",
        &mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ]),
    )?;
    licences()?;
    command::run(
        "programs",
        &mut cargo(&["build", "--workspace", "--bins", "--examples", "--quiet"]),
    )?;
    crate::systemd::verify()?;
    command::run(
        "tests",
        &mut cargo(&[
            "test",
            "--workspace",
            "--quiet",
            "--exclude",
            "trunkline-tests",
        ]),
    )?;
    command::run(
        "tests of features that are off by default",
        &mut cargo(&[
            "test",
            "--quiet",
            "--package",
            "trunkline-sinks",
            "--features",
            "uring",
            "--lib",
        ]),
    )?;
    // The programs are there already: a build for this package alone would make them anew.
    command::run(
        "end-to-end tests",
        cargo(&[
            "test",
            "--package",
            "trunkline-tests",
            "--",
            "--test-threads=1",
        ])
        .env("TRUNKLINE_BIN_DIR", command::target_dir().join("debug")),
    )?;
    crate::instructions::check()
}

fn missing() -> Vec<&'static str> {
    PROGRAMS
        .iter()
        .filter(|(program, _)| !exists(program))
        .map(|(_, package)| *package)
        .collect()
}

fn install(options: &Options) {
    let wanted = missing();
    if wanted.is_empty() {
        return;
    }
    if !options.skip_install && exists("apt-get") {
        println!("== installing {}", wanted.join(" "));
        succeeds(Command::new("apt-get").arg("update"));
        succeeds(
            Command::new("apt-get")
                .args(["install", "-y", "--no-install-recommends"])
                .args(&wanted)
                .env("DEBIAN_FRONTEND", "noninteractive"),
        );
    }
    for package in missing() {
        println!("missing: Debian package {package}; the tests that need it will say so");
    }
}

fn licences() -> Result<()> {
    if !exists("cargo-deny") {
        println!("== installing cargo-deny");
        succeeds(&mut cargo(&[
            "install",
            "--locked",
            "--quiet",
            "--debug",
            "cargo-deny",
        ]));
    }
    if !exists("cargo-deny") {
        println!("missing: cargo-deny; licences and bans are not checked");
        return Ok(());
    }
    command::run(
        "licences and bans",
        &mut cargo(&["deny", "check", "licenses", "bans", "sources"]),
    )
}
