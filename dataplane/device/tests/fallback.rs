//! The fallback is chosen, with its reason, where io_uring is blocked.
#![allow(unsafe_code)]

use trunkline_device::{Backend, Config, Device, Opened, open};

/// Makes a system call answer `errno` for the calling thread, as a container's profile does.
fn block(call: libc::c_long, errno: u32) {
    const RETURN_ALLOW: u32 = 0x7FFF_0000;
    const RETURN_ERRNO: u32 = 0x0005_0000;
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        // The system call's number is the first word of what the filter sees.
        instruction((libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16, 0, 0, 0),
        instruction(
            (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16,
            0,
            1,
            call as u32,
        ),
        instruction(
            (libc::BPF_RET | libc::BPF_K) as u16,
            0,
            0,
            RETURN_ERRNO | errno,
        ),
        instruction((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, RETURN_ALLOW),
    ];
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the program is live for the calls; the filter holds for this thread only.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let result = libc::prctl(
            libc::PR_SET_SECCOMP,
            libc::SECCOMP_MODE_FILTER,
            &raw const filter,
        );
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

#[test]
fn a_blocked_io_uring_means_the_fallback_and_says_why() {
    for (errno, words) in [(libc::EPERM, "seccomp"), (libc::ENOSYS, "no io_uring")] {
        let reason = std::thread::spawn(move || {
            block(libc::SYS_io_uring_setup, errno as u32);
            match open(Backend::Uring, &Config::default()).unwrap() {
                Opened::Uring(_) => None,
                Opened::Mmsg { device, reason } => {
                    assert_eq!(device.name(), "mmsg");
                    reason
                }
            }
        });
        let reason = reason.join().unwrap().expect("a reason");
        assert!(
            reason.contains("io_uring") && reason.contains(words),
            "{reason}"
        );
    }
}

#[test]
fn a_blocked_bpf_means_a_socket_a_port_and_says_why() {
    let reason = std::thread::spawn(|| {
        block(libc::SYS_bpf, libc::EPERM as u32);
        match open(Backend::Uring, &Config::default()).unwrap() {
            Opened::Uring(device) => device.steered().unwrap_err().to_owned(),
            Opened::Mmsg { reason, .. } => panic!("io_uring is allowed: {reason:?}"),
        }
    });
    let reason = reason.join().unwrap();
    assert!(reason.contains("CAP_NET_ADMIN"), "{reason}");
}

#[test]
fn more_slots_than_open_files_name_the_limit_to_raise() {
    let config = Config {
        slots_max: 1 << 20,
        ..Config::default()
    };
    match open(Backend::Uring, &config).unwrap() {
        Opened::Uring(_) => {}
        Opened::Mmsg { reason, .. } => {
            assert!(reason.unwrap().contains("LimitNOFILE"));
        }
    }
}

#[test]
fn the_fallback_can_be_asked_for() {
    let opened = open(Backend::Mmsg, &Config::default()).unwrap();
    assert!(matches!(opened, Opened::Mmsg { reason: None, .. }));
}

#[test]
fn sizes_that_do_not_fit_are_an_error_whatever_the_backend() {
    for backend in [Backend::Uring, Backend::Mmsg] {
        assert!(
            open(
                backend,
                &Config {
                    buffers: 100,
                    ..Config::default()
                }
            )
            .is_err()
        );
        assert!(
            open(
                backend,
                &Config {
                    slots_max: 0,
                    ..Config::default()
                }
            )
            .is_err()
        );
        assert!(
            open(
                backend,
                &Config {
                    batch_max: 0,
                    ..Config::default()
                }
            )
            .is_err()
        );
    }
}
