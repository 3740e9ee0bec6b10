//! Port pairs of one interface: bound before they are asked for, rested after use.
//!
//! ```text
//!            bind ahead            take                 sockets closed        30 s
//!   free ---------------> warm ------------> used ------------------> resting ------> free
//!                                             ^     2..30 s, when short  |
//!                                             +--------------------------+
//! ```
//! A resting pair holds no socket, so that a datagram still under way to an old call meets nobody.
//! Free pairs are taken in the order in which they became free: oldest first.
//!
//! Where the workers need no sockets a bind only shows that nobody else has the pair, and nothing is
//! held: whoever binds it later gets none of its datagrams. So the range must be one that the kernel
//! does not give away ([`keeps_out_of`]).

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use trunkline_config::PortRange;
use trunkline_device::media_socket;
use trunkline_link::limits::{PORT_REST_MIN_S, PORT_REST_S};

const SECOND_NS: u64 = 1_000_000_000;

/// Two neighbouring ports of ours.
#[derive(Debug)]
pub struct PortPair {
    /// The even port.
    pub port: u16,
    /// Its socket and that of the port after it, where ports have sockets.
    pub sockets: Option<[OwnedFd; 2]>,
}

/// Why there is no pair.
#[derive(Debug)]
pub enum TakeError {
    /// All are in use or rest.
    NonePresent,
    /// Not an even port of the range.
    OutOfRange,
    /// One of our sessions has it.
    InUse,
    /// Somebody else has it; the kernel may let go of a dead process's ports late: try again.
    Foreign,
    /// The kernel refuses sockets altogether (files, memory).
    System(io::Error),
}

/// Where a pair is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Free,
    Warm,
    Used,
    Resting,
}

/// A pair that may not be used yet.
#[derive(Debug, Clone, Copy)]
struct Rest {
    since_ns: u64,
    port: u16,
    /// It could not be bound, rather than having been used.
    foreign: bool,
}

/// How many pairs are where, and what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PortCounts {
    /// In the range.
    pub pairs: u64,
    /// To be had at once.
    pub free: u64,
    /// Resting.
    pub resting: u64,
    /// In use.
    pub used: u64,
    /// Taken before the full rest, since the start.
    pub rests_cut: u64,
    /// Binds refused, since the start.
    pub binds_failed: u64,
}

/// The pairs of one interface.
#[derive(Debug)]
pub struct PortPool {
    address: IpAddr,
    holds: bool,
    first: u16,
    states: Vec<State>,
    free: VecDeque<u16>,
    warm: VecDeque<PortPair>,
    warm_target: usize,
    resting: VecDeque<Rest>,
    rests_cut: u64,
    binds_failed: u64,
}

impl PortPool {
    /// A pool that keeps `warm_target` pairs ready. `holds`: pairs come with their sockets.
    #[must_use]
    pub fn new(address: IpAddr, range: PortRange, warm_target: usize, holds: bool) -> Self {
        let pairs = range.pairs() as usize;
        let first = range.first + (range.first & 1);
        let free = (0..pairs).map(|index| first + 2 * index as u16).collect();
        Self {
            address,
            holds,
            first,
            states: vec![State::Free; pairs],
            free,
            warm: VecDeque::new(),
            warm_target: warm_target.min(pairs),
            resting: VecDeque::new(),
            rests_cut: 0,
            binds_failed: 0,
        }
    }

    /// The address that sockets are bound to.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Any pair: a warm one, else one bound now, else one that rests for 2 s at least.
    ///
    /// # Errors
    /// `NonePresent`, `System`.
    pub fn take(&mut self, now_ns: u64) -> Result<PortPair, TakeError> {
        self.end_rests(now_ns);
        if let Some(pair) = self.warm.pop_front() {
            self.set(pair.port, State::Used);
            return Ok(pair);
        }
        while let Some(port) = self.free.pop_front() {
            match self.bind(port) {
                Ok(pair) => {
                    self.set(port, State::Used);
                    return Ok(pair);
                }
                Err(error) => self.refused(port, now_ns, error)?,
            }
        }
        while let Some(rest) = self.resting.front().copied() {
            if now_ns.saturating_sub(rest.since_ns) < PORT_REST_MIN_S * SECOND_NS {
                break;
            }
            self.resting.pop_front();
            match self.bind(rest.port) {
                Ok(pair) => {
                    self.rests_cut += u64::from(!rest.foreign);
                    self.set(rest.port, State::Used);
                    return Ok(pair);
                }
                Err(error) => self.refused(rest.port, now_ns, error)?,
            }
        }
        Err(TakeError::NonePresent)
    }

    /// This very pair, rested or not: a session goes on.
    ///
    /// # Errors
    /// `OutOfRange`, `InUse`, `Foreign` (try again), `System`.
    pub fn take_fixed(&mut self, port: u16, now_ns: u64) -> Result<PortPair, TakeError> {
        let place = self.place(port).ok_or(TakeError::OutOfRange)?;
        match self.states[place] {
            State::Used => return Err(TakeError::InUse),
            State::Warm => {
                let at = self.warm.iter().position(|pair| pair.port == port);
                self.states[place] = State::Used;
                return Ok(self
                    .warm
                    .remove(at.expect("a warm pair is listed"))
                    .expect("just found"));
            }
            State::Free => self.free.retain(|free| *free != port),
            State::Resting => self.resting.retain(|rest| rest.port != port),
        }
        match self.bind(port) {
            Ok(pair) => {
                self.states[place] = State::Used;
                Ok(pair)
            }
            Err(error) => {
                self.refused(port, now_ns, error)?;
                Err(TakeError::Foreign)
            }
        }
    }

    /// The sockets of a used pair are closed: it rests.
    pub fn release(&mut self, port: u16, now_ns: u64) {
        let place = self.place(port);
        if place.is_some_and(|place| self.states[place] == State::Used) {
            self.set(port, State::Resting);
            self.resting.push_back(Rest {
                since_ns: now_ns,
                port,
                foreign: false,
            });
        }
    }

    /// A pair that was taken and that nobody has heard of: it is warm again.
    pub fn give_back(&mut self, pair: PortPair) {
        self.set(pair.port, State::Warm);
        self.warm.push_front(pair);
    }

    /// Ends rests that are over and binds at most `binds_max` pairs ahead. `true`: there is more to
    /// bind.
    pub fn housekeep(&mut self, now_ns: u64, binds_max: usize) -> bool {
        self.end_rests(now_ns);
        for _ in 0..binds_max {
            if self.warm.len() >= self.warm_target {
                return false;
            }
            let Some(port) = self.free.pop_front() else {
                return false;
            };
            match self.bind(port) {
                Ok(pair) => {
                    self.set(port, State::Warm);
                    self.warm.push_back(pair);
                }
                Err(error) => {
                    if self.refused(port, now_ns, error).is_err() {
                        return false;
                    }
                }
            }
        }
        self.warm.len() < self.warm_target && !self.free.is_empty()
    }

    /// How many pairs are where.
    #[must_use]
    pub fn counts(&self) -> PortCounts {
        let free = self.free.len() + self.warm.len();
        PortCounts {
            pairs: self.states.len() as u64,
            free: free as u64,
            resting: self.resting.len() as u64,
            used: (self.states.len() - free - self.resting.len()) as u64,
            rests_cut: self.rests_cut,
            binds_failed: self.binds_failed,
        }
    }

    fn bind(&self, port: u16) -> io::Result<PortPair> {
        let socket = |port| media_socket(SocketAddr::new(self.address, port));
        let sockets = [socket(port)?, socket(port + 1)?];
        Ok(PortPair {
            port,
            sockets: self.holds.then_some(sockets),
        })
    }

    fn end_rests(&mut self, now_ns: u64) {
        while let Some(rest) = self.resting.front()
            && now_ns.saturating_sub(rest.since_ns) >= PORT_REST_S * SECOND_NS
        {
            let port = rest.port;
            self.resting.pop_front();
            self.set(port, State::Free);
            self.free.push_back(port);
        }
    }

    /// A bind failed: a pair that somebody else holds waits like a used one; where the kernel
    /// refuses sockets altogether the pair keeps its place and the error goes up.
    fn refused(&mut self, port: u16, now_ns: u64, error: io::Error) -> Result<(), TakeError> {
        self.binds_failed += 1;
        if error.kind() == io::ErrorKind::AddrInUse {
            self.set(port, State::Resting);
            self.resting.push_back(Rest {
                since_ns: now_ns,
                port,
                foreign: true,
            });
            return Ok(());
        }
        self.set(port, State::Free);
        self.free.push_front(port);
        Err(TakeError::System(error))
    }

    fn place(&self, port: u16) -> Option<usize> {
        let offset = port.checked_sub(self.first)?;
        let place = usize::from(offset / 2);
        (offset.is_multiple_of(2) && place < self.states.len()).then_some(place)
    }

    fn set(&mut self, port: u16, state: State) {
        let place = self.place(port).expect("a pair of ours");
        self.states[place] = state;
    }
}

/// Whether the kernel gives none of these ports to programs that ask for any port.
///
/// # Errors
/// It does not say.
pub fn keeps_out_of(range: PortRange) -> io::Result<bool> {
    let read = |name| std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
    let given = read("ip_local_port_range")?;
    let reserved = read("ip_local_reserved_ports")?;
    Ok(is_kept(range, &given, &reserved))
}

/// `given`: two numbers; `reserved`: numbers and ranges with commas between them.
fn is_kept(range: PortRange, given: &str, reserved: &str) -> bool {
    let mut given = given.split_whitespace().map(str::parse);
    let (Some(Ok(first)), Some(Ok(last))) = (given.next(), given.next()) else {
        return false;
    };
    let mut open: Vec<u16> = (range.first.max(first)..=range.last.min(last)).collect();
    for part in reserved.trim().split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(from), Ok(to)) = (from.parse::<u16>(), to.parse()) {
            open.retain(|port| !(from..=to).contains(port));
        }
    }
    open.is_empty()
}

/// A loopback address of its own for each test of each process, so that ports are free.
#[cfg(test)]
pub(crate) fn test_host(number: u8) -> std::net::Ipv4Addr {
    let process = std::process::id();
    let octets = [80 + (process % 160) as u8, (process / 160 % 250) as u8];
    std::net::Ipv4Addr::new(127, octets[0], octets[1], number)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, UdpSocket};

    use socket2::Socket;

    use super::*;

    const START: u64 = 1_000 * SECOND_NS;

    /// A pool of few pairs on a loopback address of its own.
    fn pool(host: u8, first: u16, last: u16) -> PortPool {
        PortPool::new(test_host(host).into(), PortRange { first, last }, 2, true)
    }

    #[test]
    fn pairs_are_even_and_odd_and_carry_datagrams() {
        let mut pool = pool(1, 40001, 40005);
        assert_eq!(pool.counts().pairs, 2);
        while pool.housekeep(START, 1) {}
        let first = pool.take(START).unwrap();
        let second = pool.take(START).unwrap();
        assert_eq!((first.port, second.port), (40002, 40004));
        assert!(matches!(pool.take(START), Err(TakeError::NonePresent)));
        let [rtp, _] = first.sockets.unwrap().map(UdpSocket::from);
        let [_, rtcp] = second.sockets.unwrap().map(UdpSocket::from);
        assert_eq!(rtcp.local_addr().unwrap().port(), 40005);
        rtcp.send_to(b"over", rtp.local_addr().unwrap()).unwrap();
        rtp.set_nonblocking(false).unwrap();
        assert_eq!(rtp.recv(&mut [0; 16]).unwrap(), 4);
    }

    #[test]
    fn a_freed_pair_rests_unbound_and_the_oldest_comes_back_first() {
        let mut pool = pool(2, 40000, 40005);
        let taken: Vec<_> = (0..3).map(|_| pool.take(START).unwrap()).collect();
        let ports: Vec<_> = taken.iter().map(|pair| pair.port).collect();
        drop(taken);
        for (index, port) in [2, 0, 1].map(|index| ports[index]).into_iter().enumerate() {
            pool.release(port, START + index as u64);
        }
        let counts = pool.counts();
        assert_eq!((counts.free, counts.resting, counts.used), (0, 3, 0));
        // While it rests, anybody may bind it: we hold no socket.
        drop(UdpSocket::bind((pool.address(), ports[2])).unwrap());
        let rested = START + PORT_REST_S * SECOND_NS + 2;
        assert!(!pool.housekeep(rested, 8));
        let again: Vec<_> = (0..3).map(|_| pool.take(rested).unwrap().port).collect();
        assert_eq!(again, [ports[2], ports[0], ports[1]]);
        assert_eq!(pool.counts().rests_cut, 0);
    }

    #[test]
    fn rests_shrink_to_two_seconds_before_anybody_is_refused() {
        let mut pool = pool(3, 40000, 40001);
        let port = pool.take(START).unwrap().port;
        pool.release(port, START);
        let short = START + PORT_REST_MIN_S * SECOND_NS;
        assert!(matches!(pool.take(short - 1), Err(TakeError::NonePresent)));
        assert_eq!(pool.take(short).unwrap().port, port);
        assert_eq!(pool.counts().rests_cut, 1);
    }

    #[test]
    fn a_fixed_pair_is_had_from_wherever_it_is() {
        let mut pool = pool(4, 40000, 40007);
        while pool.housekeep(START, 8) {}
        let warm = pool.take_fixed(40000, START).unwrap();
        let free = pool.take_fixed(40006, START).unwrap();
        assert_eq!((warm.port, free.port), (40000, 40006));
        assert!(matches!(
            pool.take_fixed(40000, START),
            Err(TakeError::InUse)
        ));
        drop(warm);
        pool.release(40000, START);
        assert_eq!(pool.take_fixed(40000, START).unwrap().port, 40000);
        for wrong in [40001, 39998, 40008, 0] {
            assert!(matches!(
                pool.take_fixed(wrong, START),
                Err(TakeError::OutOfRange)
            ));
        }
    }

    #[test]
    fn a_pair_that_somebody_else_holds_is_passed_over_and_found_again() {
        let mut pool = pool(5, 40000, 40003);
        let foreign = UdpSocket::bind((pool.address(), 40001)).unwrap();
        assert_eq!(pool.take(START).unwrap().port, 40002);
        assert!(matches!(pool.take(START), Err(TakeError::NonePresent)));
        assert!(matches!(
            pool.take_fixed(40000, START),
            Err(TakeError::Foreign)
        ));
        assert!(pool.counts().binds_failed >= 2);
        drop(foreign);
        assert_eq!(pool.take_fixed(40000, START).unwrap().port, 40000);
    }

    #[test]
    fn sockets_are_marked_for_expedited_forwarding() {
        let mut pool = pool(6, 40000, 40001);
        let pair = pool.take(START).unwrap();
        let [rtp, _] = pair.sockets.unwrap().map(Socket::from);
        assert_eq!(rtp.tos_v4().unwrap(), 46 << 2);
        let range = PortRange {
            first: 40100,
            last: 40101,
        };
        let mut pool = PortPool::new(Ipv6Addr::LOCALHOST.into(), range, 0, true);
        match pool.take(START) {
            Ok(pair) => {
                let [_, rtcp] = pair.sockets.unwrap().map(Socket::from);
                assert_eq!(rtcp.tclass_v6().unwrap(), 46 << 2);
            }
            // A machine without IPv6.
            Err(error) => assert!(matches!(error, TakeError::System(_))),
        }
    }

    #[test]
    fn a_pool_that_holds_nothing_still_passes_over_what_somebody_else_has() {
        let range = PortRange {
            first: 40000,
            last: 40003,
        };
        let mut pool = PortPool::new(test_host(7).into(), range, 2, false);
        let foreign = UdpSocket::bind((pool.address(), 40001)).unwrap();
        while pool.housekeep(START, 8) {}
        let pair = pool.take(START).unwrap();
        assert_eq!(pair.port, 40002);
        assert!(pair.sockets.is_none());
        drop(UdpSocket::bind((pool.address(), 40003)).unwrap());
        drop(foreign);
        assert_eq!(pool.take_fixed(40000, START).unwrap().port, 40000);
    }

    #[test]
    fn ports_are_kept_when_the_kernel_gives_none_of_them_away() {
        let range = PortRange {
            first: 20_000,
            last: 40_000,
        };
        assert!(is_kept(range, "50000 60999", ""));
        assert!(is_kept(range, "1024\t19999\n", "\n"));
        assert!(!is_kept(range, "32768 60999", ""));
        assert!(!is_kept(range, "32768 60999", "5060,32768-39999"));
        assert!(is_kept(range, "32768 60999", "5060,32768-39999,40000\n"));
        assert!(!is_kept(range, "", ""));
    }
}
