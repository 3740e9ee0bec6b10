//! The ways a device's lanes use: one for each pair of addresses, shared and counted.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::routes::{Hop, PATHS_MAX, PathId, Request, RouteSeat};

pub(super) const NO_PATH: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Path {
    number: u32,
    users: u32,
    /// Its two addresses.
    ends: (IpAddr, IpAddr),
    hop: Option<Hop>,
}

/// See the module.
pub(super) struct Paths {
    seat: RouteSeat,
    paths: Vec<Path>,
    free: Vec<u32>,
    by_ends: HashMap<(IpAddr, IpAddr), u32>,
    next_number: u32,
}

impl Paths {
    /// None yet; room for one a slot is made here.
    pub(super) fn new(seat: RouteSeat, slots: u32) -> Self {
        let capacity = (slots as usize).min(PATHS_MAX);
        Self {
            seat,
            paths: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            by_ends: HashMap::with_capacity(capacity),
            next_number: 0,
        }
    }

    /// The path between two addresses for one more user; [`NO_PATH`] when there are too many.
    pub(super) fn join(&mut self, source: IpAddr, destination: IpAddr) -> u32 {
        let ends = (source, destination);
        if let Some(&place) = self.by_ends.get(&ends) {
            self.paths[place as usize].users += 1;
            return place;
        }
        let place = match self.free.last() {
            Some(place) => *place,
            None if self.paths.len() == PATHS_MAX => return NO_PATH,
            None => self.paths.len() as u32,
        };
        let number = self.next_number;
        let watch = Request::Watch {
            path: PathId { place, number },
            source,
            destination,
        };
        if self.seat.ask(watch).is_err() {
            return NO_PATH;
        }
        let path = Path {
            number,
            users: 1,
            ends,
            hop: None,
        };
        if self.free.pop().is_some() {
            self.paths[place as usize] = path;
        } else {
            self.paths.push(path);
        }
        self.next_number = self.next_number.wrapping_add(1);
        self.by_ends.insert(ends, place);
        place
    }

    /// One user fewer.
    pub(super) fn leave(&mut self, place: u32) {
        let Some(path) = self.paths.get_mut(place as usize) else {
            return;
        };
        path.users -= 1;
        if path.users > 0 {
            return;
        }
        let (number, ends) = (path.number, path.ends);
        let forget = Request::Forget {
            path: PathId { place, number },
        };
        // Where the queue is full the path stays, without users, for the next who wants it.
        if self.seat.ask(forget).is_ok() {
            path.hop = None;
            self.by_ends.remove(&ends);
            self.free.push(place);
        }
    }

    /// Takes what is told of a path; false when nobody uses it any more.
    pub(super) fn set(&mut self, id: PathId, hop: Option<Hop>) -> bool {
        let Some(path) = self.paths.get_mut(id.place as usize) else {
            return false;
        };
        let known = path.number == id.number && self.by_ends.get(&path.ends) == Some(&id.place);
        if known {
            path.hop = hop;
        }
        known && path.users > 0
    }

    /// Its next hop.
    pub(super) fn hop(&self, place: u32) -> Option<Hop> {
        self.paths.get(place as usize)?.hop
    }
}
