//! The fallback is chosen, with its reason, where io_uring is blocked.
#![allow(unsafe_code)]

use trunkline_device::{Backend, Config, Device, Opened, Routes, open};

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

/// Takes a right away from the calling thread.
fn give_up(capability: u32) {
    #[repr(C)]
    struct Header {
        version: u32,
        thread: i32,
    }
    let mut header = Header {
        version: 0x2008_0522,
        thread: 0,
    };
    // Effective, permitted, inheritable: of the first 32 rights, then of the others.
    let mut rights = [[0_u32; 3]; 2];
    // SAFETY: both are live for the calls and of the layout that the version stands for.
    unsafe {
        let result = libc::syscall(libc::SYS_capget, &raw mut header, rights.as_mut_ptr());
        assert_eq!(result, 0);
        for set in &mut rights[0] {
            *set &= !(1 << capability);
        }
        let result = libc::syscall(libc::SYS_capset, &raw const header, rights.as_ptr());
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    }
}

const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;

#[test]
fn without_the_right_to_packet_sockets_there_are_no_frames() {
    std::thread::spawn(|| {
        give_up(CAP_NET_RAW);
        let error = Routes::start(1, |_| ()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    })
    .join()
    .unwrap();
}

#[test]
fn without_the_right_to_administer_ports_have_their_own_sockets_and_send_by_them() {
    std::thread::spawn(|| {
        give_up(CAP_NET_ADMIN);
        // What packet filters there are cannot be known then.
        let (tell, told) = std::sync::mpsc::channel();
        let start = Routes::start(1, move |allowed| {
            let _ = tell.send(allowed.map_err(str::to_owned));
        });
        let Ok((routes, mut seats)) = start else {
            return;
        };
        assert!(told.recv().unwrap().is_err());
        let config = Config {
            routes: seats.pop(),
            ..Config::default()
        };
        match open(Backend::Uring, &config).unwrap() {
            Opened::Uring(device) => {
                let reason = device.steered().unwrap_err();
                assert!(reason.contains("CAP_NET_ADMIN"), "{reason}");
            }
            Opened::Mmsg { reason, .. } => panic!("io_uring is allowed: {reason:?}"),
        }
        drop(routes);
    })
    .join()
    .unwrap();
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
