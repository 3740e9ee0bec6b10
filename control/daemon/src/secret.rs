//! The number by which requests of ours are known again, the same over restarts: an answer to an INVITE of
//! the former process is then acknowledged and ended instead of ignored.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Reads it from the data directory, or makes it. `None` = neither can be done; it is said in the log.
pub fn of(data_dir: &Path) -> Option<u64> {
    let file = data_dir.join("sip-secret");
    let known = std::fs::read_to_string(&file).ok();
    let known = known.and_then(|text| u64::from_str_radix(text.trim(), 16).ok());
    if known.is_some() {
        return known;
    }
    let fresh: u64 = rand::random();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let written = options
        .open(&file)
        .and_then(|mut opened| opened.write_all(format!("{fresh:016x}\n").as_bytes()));
    if let Err(error) = written {
        tracing::warn!(file = %file.display(), %error, "requests will not be known again after a restart");
        return None;
    }
    Some(fresh)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_and_is_made_anew_where_it_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let first = of(dir.path()).unwrap();
        assert_eq!(of(dir.path()), Some(first));
        std::fs::write(dir.path().join("sip-secret"), "no number").unwrap();
        let second = of(dir.path()).unwrap();
        assert_ne!(second, first);
        assert_eq!(of(dir.path()), Some(second));
        assert_eq!(of(Path::new("/nowhere/at/all")), None);
    }
}
