//! Kamailio as a proxy that records routes.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::process::{Process, exists};
use crate::sipp::{Transport, wait_until_bound};

/// What comes from the appliance goes to the callee, all else to the appliance; both ways the
/// route is recorded, and requests inside dialogs follow it.
fn proxy(port: u16, appliance: u16, callee: u16) -> String {
    format!(
        "debug=1\nlog_stderror=yes\nfork=yes\nchildren=1\ndisable_tcp=yes\nauto_aliases=no\n\
         listen=udp:127.0.0.1:{port}\n\
         loadmodule \"tm.so\"\nloadmodule \"sl.so\"\nloadmodule \"rr.so\"\nloadmodule \"pv.so\"\n\
         loadmodule \"siputils.so\"\nloadmodule \"maxfwd.so\"\nloadmodule \"textops.so\"\n\
         request_route {{\n\
           if (!mf_process_maxfwd_header(\"10\")) {{ sl_send_reply(\"483\", \"Too Many Hops\"); exit; }}\n\
           if (has_totag()) {{\n\
             if (loose_route()) {{ t_relay(); exit; }}\n\
             if (is_method(\"ACK\") && t_check_trans()) {{ t_relay(); }}\n\
             if (!is_method(\"ACK\")) {{ sl_send_reply(\"404\", \"No route\"); }}\n\
             exit;\n\
           }}\n\
           if (is_method(\"CANCEL\")) {{ if (t_check_trans()) {{ t_relay(); }} exit; }}\n\
           t_check_trans();\n\
           record_route();\n\
           if ($sp == {appliance}) {{ $du = \"sip:127.0.0.1:{callee}\"; }}\n\
           else {{ $du = \"sip:127.0.0.1:{appliance}\"; }}\n\
           t_relay();\n\
         }}\n"
    )
}

/// Kamailio with its children, which a killed parent would leave behind.
#[derive(Debug)]
pub struct Proxy(Process);

impl Proxy {
    /// Starts one at this port: what comes from the appliance's port goes to the callee's, all else to the
    /// appliance.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start(folder: &Path, port: u16, appliance: u16, callee: u16) -> Self {
        let file = folder.join("kamailio.cfg");
        std::fs::write(&file, proxy(port, appliance, callee)).expect("a configuration");
        let log = File::create(folder.join("kamailio.log")).expect("a log");
        let mut command = Command::new("kamailio");
        command.args(["-DD", "-E", "-m", "64", "-f"]).arg(&file);
        command.arg("-Y").arg(folder).arg("-w").arg(folder);
        command.stdout(log.try_clone().expect("a log")).stderr(log);
        let process = Process::start("kamailio", &mut command);
        wait_until_bound(Transport::Udp, port);
        Self(process)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.0.signal(Signal::SIGTERM);
        let patience = Duration::from_secs(20);
        if !std::thread::panicking() {
            self.0.wait(patience);
            return;
        }
        // A failed test leaves no children behind either, and a second panic would abort.
        let deadline = Instant::now() + patience;
        while exists(self.0.pid()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(25));
        }
    }
}
