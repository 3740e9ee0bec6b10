//! Lanes follow what is told, and fall back to sockets.

use super::*;
use crate::buffer::Pool;
use crate::routes::Hop;

fn origin(text: &str) -> Option<Origin> {
    Some(Origin {
        address: text.parse().unwrap(),
        hops: 64,
        traffic_class: 0xb8,
    })
}

fn hop(last: u8, mtu: u32) -> Option<Hop> {
    Some(Hop {
        interface: 0,
        from: [2, 0, 0, 0, 0, 1],
        to: [2, 0, 0, 0, 0, last],
        mtu,
    })
}

struct Bench {
    egress: Egress,
    seat: RouteSeat,
    pool: Pool,
}

impl Bench {
    fn new() -> Self {
        let seat = RouteSeat::for_tests();
        Self {
            egress: Egress::new(seat.clone(), 4),
            seat,
            pool: Pool::new(1).unwrap(),
        }
    }

    /// Frames `length` bytes; gives the next hop's last octet.
    fn send(&mut self, slot: u32, to: &str, length: usize) -> Option<u8> {
        let mut buffer = self.pool.take().unwrap();
        buffer.set_len(length);
        let frame = self.egress.frame(slot, &to.parse().unwrap(), &mut buffer);
        let octet = frame.map(|frame| buffer.parts().0[96 - frame.header_bytes + 5]);
        self.pool.give(buffer);
        octet
    }

    fn asked(&self) -> Vec<Request> {
        std::iter::from_fn(|| self.seat.requests().pop()).collect()
    }

    fn tell(&mut self, path: crate::routes::PathId, hop: Option<Hop>) {
        self.seat
            .updates()
            .push(Update::Path { path, hop })
            .unwrap();
        assert!(self.egress.next_news().is_none());
    }
}

fn watched(request: &Request) -> crate::routes::PathId {
    match request {
        Request::Watch { path, .. } => *path,
        Request::Forget { .. } | Request::Packets => panic!("{request:?}"),
    }
}

#[test]
fn a_lane_is_by_socket_until_its_path_is_told_and_follows_it() {
    let mut bench = Bench::new();
    bench.egress.open(1, origin("192.0.2.1:5004"));
    assert_eq!(bench.send(1, "198.51.100.1:9", 100), None);
    let asked = bench.asked();
    let path = watched(&asked[0]);
    bench.tell(path, hop(7, 1500));
    // The socket of the interface is not there yet.
    assert_eq!(bench.send(1, "198.51.100.1:9", 100), None);
    bench.egress.is_ready(0, true);
    assert_eq!(bench.send(1, "198.51.100.1:9", 100), Some(7));
    // Another port there takes the same path; a neighbour that moves is followed.
    assert_eq!(bench.send(1, "198.51.100.1:11", 100), Some(7));
    bench.tell(path, hop(8, 1500));
    assert_eq!(bench.send(1, "198.51.100.1:11", 100), Some(8));
    bench.tell(path, None);
    assert_eq!(bench.send(1, "198.51.100.1:11", 100), None);
    assert!(bench.asked().is_empty());
}

#[test]
fn what_is_too_long_for_every_path_goes_by_socket() {
    let mut bench = Bench::new();
    bench.egress.is_ready(0, true);
    bench.egress.open(0, origin("[2001:db8::1]:5004"));
    bench.send(0, "[2001:db8::2]:9", 1);
    let path = watched(&bench.asked()[0]);
    bench.tell(path, hop(7, 9000));
    assert_eq!(bench.send(0, "[2001:db8::2]:9", 1280 - 48), Some(7));
    assert_eq!(bench.send(0, "[2001:db8::2]:9", 1280 - 47), None);
    bench.tell(path, hop(7, 600));
    assert_eq!(bench.send(0, "[2001:db8::2]:9", 600 - 48), Some(7));
    assert_eq!(bench.send(0, "[2001:db8::2]:9", 600 - 47), None);
}

#[test]
fn paths_are_shared_and_forgotten_with_their_last_user() {
    let mut bench = Bench::new();
    bench.egress.is_ready(0, true);
    for slot in 0..2 {
        bench.egress.open(slot, origin("192.0.2.1:5004"));
        bench.send(slot, "198.51.100.1:9", 1);
    }
    let asked = bench.asked();
    let [Request::Watch { path, .. }] = asked[..] else {
        panic!("{asked:?}")
    };
    bench.egress.close(0);
    assert!(bench.asked().is_empty());
    // It moves to another address: nobody is left.
    bench.send(1, "198.51.100.2:9", 1);
    let asked = bench.asked();
    assert!(matches!(asked[0], Request::Forget { path: left } if left == path));
    let next = watched(&asked[1]);
    // What comes late for the old one is not taken for the new one.
    assert_eq!(next.place, path.place);
    bench.tell(path, hop(7, 1500));
    assert_eq!(bench.send(1, "198.51.100.2:9", 1), None);
    bench.tell(next, hop(9, 1500));
    assert_eq!(bench.send(1, "198.51.100.2:9", 1), Some(9));
}

#[test]
fn what_has_no_plain_address_goes_by_socket() {
    let mut bench = Bench::new();
    bench.egress.open(0, None);
    bench.egress.open(1, origin("[2001:db8::1]:5004"));
    bench.egress.open(2, origin("192.0.2.1:5004"));
    assert_eq!(bench.send(0, "198.51.100.1:9", 1), None);
    assert_eq!(bench.send(1, "[fe80::1%3]:9", 1), None);
    assert_eq!(bench.send(2, "[2001:db8::2]:9", 1), None);
    assert!(bench.asked().is_empty());
}
