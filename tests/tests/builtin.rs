//! SIPp's own scenarios through the appliance.

use trunkline_tests::appliance::Setup;
use trunkline_tests::ports::free_port;
use trunkline_tests::sipp::{Sipp, Transport, wait_until_bound};
use trunkline_tests::{Appliance, installed, skip};

/// An appliance that sends user `a` to one port and user `b` to another.
fn two_routes(a: u16, b: u16) -> Appliance {
    let routes = format!(
        "[[route]]\nuser = \"a\"\nnext = \"sip:127.0.0.1:{a}\"\n\
         [[route]]\nuser = \"b\"\nnext = \"sip:127.0.0.1:{b}\"\n"
    );
    Appliance::start(&Setup {
        next: String::new(),
        sip: Box::leak(routes.into_boxed_str()),
        ..Setup::to_port(a)
    })
}

#[test]
fn sipps_uac_calls_sipps_uas() {
    let test = "sipps_uac_calls_sipps_uas";
    if !installed("sipp") {
        return skip(test, "needs sipp");
    }
    let (a, b) = (free_port(), free_port());
    let appliance = two_routes(a, b);
    let folder = appliance.folder();
    let callee = Sipp::start_own(folder, "uas", b, &["-m", "10"], None);
    let arguments = ["-m", "10", "-r", "20", "-d", "500", "-s", "b"];
    let caller = Sipp::start_own(folder, "uac", 0, &arguments, Some(appliance.sip_port));
    caller.finish();
    callee.finish();
}

/// Third-party call control: a controller calls A without an offer, passes A's offer to B and
/// B's answer back in the ACK. Each leg is a call of its own through the appliance.
#[test]
fn sipps_third_party_call_control_crosses_with_its_late_offer() {
    let test = "sipps_third_party_call_control_crosses_with_its_late_offer";
    if !installed("sipp") {
        return skip(test, "needs sipp");
    }
    let (a, b) = (free_port(), free_port());
    let appliance = two_routes(a, b);
    let (folder, us) = (appliance.folder(), Some(appliance.sip_port));
    let first = Sipp::start_own(folder, "3pcc-A", a, &["-m", "2"], None);
    let second = Sipp::start_own(folder, "3pcc-B", b, &["-m", "2"], None);
    let twin = free_port();
    let between = format!("127.0.0.1:{twin}");
    let controller = |user| ["-m", "2", "-s", user, "-3pcc", &between].map(str::to_owned);
    let start = |scenario, user| {
        let arguments = controller(user);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Sipp::start_own(folder, scenario, 0, &arguments, us)
    };
    // This one listens for the other.
    let to_b = start("3pcc-C-B", "b");
    wait_until_bound(Transport::Tcp, twin);
    let to_a = start("3pcc-C-A", "a");
    to_a.finish();
    to_b.finish();
    first.finish();
    second.finish();
}
