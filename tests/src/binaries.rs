//! The programs under test, built once with the profile and target directory of this test.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Set to use programs that are built already: the folder they are in, with `examples` in it.
pub const FOLDER_VARIABLE: &str = "TRUNKLINE_BIN_DIR";

/// Packages whose programs are needed.
const PACKAGES: [&str; 6] = [
    "trunkline",
    "trunkline-control",
    "trunkline-dataplane",
    "trunkline-rtpgen",
    "sn3",
    "trunkline-bench",
];

/// A program under test.
///
/// # Panics
/// It cannot be built, or is not where it should be.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(path.is_file(), "{} is missing", path.display());
    path
}

/// The folder they are in.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| match std::env::var_os(FOLDER_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => {
            build(&["--bins"], &PACKAGES);
            profile_folder()
        }
    })
}

/// An example program of the control process.
///
/// # Panics
/// It cannot be built.
#[must_use]
pub fn example(name: &str) -> PathBuf {
    if std::env::var_os(FOLDER_VARIABLE).is_none() {
        build(&["--example", name], &["trunkline-control"]);
    }
    folder().join("examples").join(name)
}

/// A test runs from TARGET/PROFILE/deps/NAME, so it knows both.
fn profile_folder() -> PathBuf {
    let own = std::env::current_exe().expect("a test knows its own path");
    own.parent()
        .and_then(|deps| {
            if deps.ends_with("deps") {
                deps.parent()
            } else {
                Some(deps)
            }
        })
        .expect("a test runs in a target directory")
        .to_owned()
}

fn build(what: &[&str], packages: &[&str]) {
    let folder = profile_folder();
    let target = folder.parent().expect("a profile's folder has a parent");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--quiet", "--profile", profile, "--target-dir"])
        .arg(target)
        .args(what);
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    for package in packages {
        cargo.args(["-p", package]);
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "the programs under test do not build");
}
