//! Which device a worker gets.

use crate::device::{Config, DeviceError};
use crate::mmsg::MmsgDevice;
use crate::uring::UringDevice;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Backend {
    /// io_uring, and the fallback where it is blocked.
    #[default]
    Uring,
    /// The fallback from the start.
    Mmsg,
}

/// What was opened. The worker matches once and is compiled for each.
pub enum Opened {
    /// io_uring.
    Uring(UringDevice),
    /// The fallback.
    Mmsg {
        /// The device.
        device: MmsgDevice,
        /// Why it is not io_uring, for the log; `None` when it was asked for.
        reason: Option<String>,
    },
}

/// Opens a device on the calling thread, which alone may use it.
///
/// # Errors
/// A value of `config` does not fit, or not even the fallback can be had.
pub fn open(backend: Backend, config: &Config) -> Result<Opened, DeviceError> {
    let reason = match backend {
        Backend::Mmsg => None,
        Backend::Uring => match UringDevice::open(config) {
            Ok(device) => return Ok(Opened::Uring(device)),
            Err(error @ DeviceError::Config(_)) => return Err(error),
            Err(error) => Some(format!(
                "io_uring cannot be used here: {error}{}",
                hint(&error)
            )),
        },
    };
    Ok(Opened::Mmsg {
        device: MmsgDevice::open(config)?,
        reason,
    })
}

/// What an operator can do about it.
fn hint(error: &DeviceError) -> &'static str {
    let DeviceError::System { source, .. } = error else {
        return "";
    };
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "; a seccomp profile or kernel.io_uring_disabled blocks it"
        }
        Some(libc::ENOSYS) => "; the kernel has no io_uring, or a seccomp profile hides it",
        Some(libc::ENOMEM) => "; raise the locked-memory limit (LimitMEMLOCK)",
        Some(libc::EMFILE) => "; raise the open-files limit (LimitNOFILE)",
        Some(libc::EINVAL | libc::EOPNOTSUPP) => "; the kernel is older than 6.1",
        _ => "",
    }
}
