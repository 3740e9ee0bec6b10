//! The steering program, instruction by instruction (Linux `instruction-set.rst`).
//!
//! ```text
//!   port = ports[datagram.local_port], or the next of the same number, at most four
//!   unless port.family == datagram.family and port.address == datagram.local_address:
//!       the datagram goes to whom it would have gone without us
//!   if port.unread:
//!       port.dropped += 1
//!       the datagram goes to discards[family == IPv6]
//!   if port.sources has datagram's source:
//!       port.heard = now
//!   else if now >= port.closed_from and now - port.heard < port.silent:
//!       ports[0].strangers += 1
//!       the datagram goes to discards[family == IPv6]
//!   the datagram goes to sockets[family == IPv6]
//! ```
//! Whenever anything fails, it goes to whom it would have gone without us.

use std::mem::offset_of;

use super::{PortEntry, SAME_NUMBER_MAX, Source};

// `struct bpf_sk_lookup`.
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const REMOTE_IP4: i16 = 16;
const REMOTE_IP6: i16 = 20;
const REMOTE_PORT: i16 = 36;
const LOCAL_IP4: i16 = 40;
const LOCAL_IP6: i16 = 44;
const LOCAL_PORT: i16 = 60;

const MAP_LOOKUP: i32 = 1;
const SOCKET_RELEASE: i32 = 86;
const SOCKET_ASSIGN: i32 = 124;
const COARSE_CLOCK: i32 = 160;

/// Registers that outlive calls, and the stack's frame pointer.
const DATAGRAM: u8 = 6;
const ENTRY: u8 = 7;
const WHICH: u8 = 8;
const INDEX: u8 = 9;
const FRAME: u8 = 10;
/// Where a key stands on the stack, and the datagram's addresses.
const KEY: i16 = -4;
const LOCAL: i16 = -24;
const REMOTE: i16 = -40;

const WORD: u8 = 0x61;
const LONG: u8 = 0x79;
const HALF: u8 = 0x69;

/// A place in the program that jumps lead to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Label(usize);

#[derive(Default)]
struct Assembler {
    code: Vec<u64>,
    jumps: Vec<(usize, Label)>,
    /// Where each label is.
    labels: Vec<Option<usize>>,
}

impl Assembler {
    fn push(&mut self, opcode: u8, target: u8, source: u8, offset: i16, value: i32) {
        let [low, high] = offset.to_ne_bytes();
        let mut bytes = [opcode, source << 4 | target, low, high, 0, 0, 0, 0];
        bytes[4..].copy_from_slice(&value.to_ne_bytes());
        self.code.push(u64::from_ne_bytes(bytes));
    }

    fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The label is here.
    fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    fn branch(&mut self, opcode: u8, left: u8, right: u8, value: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.push(opcode, left, right, 0, value);
    }

    fn jump(&mut self, to: Label) {
        self.branch(0x05, 0, 0, 0, to);
    }

    fn jump_if(&mut self, register: u8, value: i32, to: Label) {
        self.branch(0x15, register, 0, value, to);
    }

    fn jump_unless(&mut self, register: u8, value: i32, to: Label) {
        self.branch(0x55, register, 0, value, to);
    }

    fn jump_unless_equal(&mut self, left: u8, right: u8, to: Label) {
        self.branch(0x5d, left, right, 0, to);
    }

    /// Unsigned.
    fn jump_if_less(&mut self, left: u8, right: u8, to: Label) {
        self.branch(0xad, left, right, 0, to);
    }

    /// `target = source`, 64 bits.
    fn copy(&mut self, target: u8, source: u8) {
        self.push(0xbf, target, source, 0, 0);
    }

    fn set(&mut self, target: u8, value: i32) {
        self.push(0xb7, target, 0, 0, value);
    }

    fn add(&mut self, target: u8, value: i32) {
        self.push(0x07, target, 0, 0, value);
    }

    /// `target -= source`.
    fn subtract(&mut self, target: u8, source: u8) {
        self.push(0x1f, target, source, 0, 0);
    }

    /// `target = *(source + offset)`, of the size given.
    fn load(&mut self, size: u8, target: u8, source: u8, offset: i16) {
        self.push(size, target, source, offset, 0);
    }

    /// `*(u32 *)(target + offset) = source`.
    fn store(&mut self, target: u8, source: u8, offset: i16) {
        self.push(0x63, target, source, offset, 0);
    }

    /// `*(u64 *)(target + offset) = source`.
    fn store_long(&mut self, target: u8, source: u8, offset: i16) {
        self.push(0x7b, target, source, offset, 0);
    }

    /// `*(u64 *)(target + offset) += source`, atomically.
    fn count(&mut self, target: u8, source: u8, offset: i16) {
        self.push(0xdb, target, source, offset, 0);
    }

    fn call(&mut self, function: i32) {
        self.push(0x85, 0, 0, 0, function);
    }

    /// Looks register `key` up in a map: register 0 is the value; without one, on at `missing`.
    fn look_up(&mut self, map: i32, key: u8, missing: Label) {
        self.store(FRAME, key, KEY);
        // A 64-bit constant, which the kernel takes for a map's descriptor.
        self.push(0x18, 1, 1, 0, map);
        self.push(0, 0, 0, 0, 0);
        self.copy(2, FRAME);
        self.add(2, i32::from(KEY));
        self.call(MAP_LOOKUP);
        self.jump_if(0, 0, missing);
    }

    /// Copies an address of the datagram to the stack: four words, of IPv4 the first.
    fn keep_address(&mut self, from: i16, words: i16, to: i16) {
        for word in 0..4 {
            if word < words {
                self.load(WORD, 1, DATAGRAM, from + 4 * word);
            } else {
                self.set(1, 0);
            }
            self.store(FRAME, 1, to + 4 * word);
        }
    }

    /// On at `unequal` unless the entry's address at `offset` is the one kept on the stack.
    fn compare_address(&mut self, offset: usize, kept: i16, unequal: Label) {
        for word in 0..4 {
            self.load(WORD, 1, ENTRY, offset as i16 + 4 * word);
            self.load(WORD, 2, FRAME, kept + 4 * word);
            self.jump_unless_equal(1, 2, unequal);
        }
    }

    /// The program: every jump leads to its label.
    fn finish(mut self) -> Vec<u64> {
        for (at, label) in self.jumps {
            let Some(to) = self.labels[label.0] else {
                continue;
            };
            let distance = (to - at - 1) as i16;
            let mut bytes = self.code[at].to_ne_bytes();
            bytes[2..4].copy_from_slice(&distance.to_ne_bytes());
            self.code[at] = u64::from_ne_bytes(bytes);
        }
        self.code
    }
}

/// The program, for these two maps (their descriptors).
pub(super) fn steering(ports: i32, sockets: i32) -> Vec<u64> {
    let mut code = Assembler::default();
    let (pass, found, assign) = (code.label(), code.label(), code.label());
    code.copy(DATAGRAM, 1);
    code.load(WORD, 1, DATAGRAM, PROTOCOL);
    code.jump_unless(1, libc::IPPROTO_UDP, pass);
    keep_addresses(&mut code);
    code.load(WORD, INDEX, DATAGRAM, LOCAL_PORT);
    for _ in 0..SAME_NUMBER_MAX {
        find_port(&mut code, ports, found, pass);
    }
    code.jump(pass);
    code.bind(found);
    throw_away_unread(&mut code, assign);
    judge_source(&mut code, ports, assign, pass);
    code.bind(assign);
    code.look_up(sockets, WHICH, pass);
    code.copy(ENTRY, 0);
    code.copy(1, DATAGRAM);
    code.copy(2, ENTRY);
    code.set(3, 0);
    code.call(SOCKET_ASSIGN);
    code.copy(1, ENTRY);
    code.call(SOCKET_RELEASE);
    code.bind(pass);
    code.set(0, 1);
    code.push(0x95, 0, 0, 0, 0);
    code.finish()
}

/// Both addresses to the stack; which family's sockets are meant.
fn keep_addresses(code: &mut Assembler) {
    let (four, kept) = (code.label(), code.label());
    code.load(WORD, 1, DATAGRAM, FAMILY);
    code.jump_if(1, libc::AF_INET, four);
    code.set(WHICH, 1);
    code.keep_address(LOCAL_IP6, 4, LOCAL);
    code.keep_address(REMOTE_IP6, 4, REMOTE);
    code.jump(kept);
    code.bind(four);
    code.set(WHICH, 0);
    code.keep_address(LOCAL_IP4, 1, LOCAL);
    code.keep_address(REMOTE_IP4, 1, REMOTE);
    code.bind(kept);
}

/// Looks at one entry: on at `found`, or behind this with the next entry's index.
fn find_port(code: &mut Assembler, ports: i32, found: Label, pass: Label) {
    let other = code.label();
    code.look_up(ports, INDEX, pass);
    code.copy(ENTRY, 0);
    code.load(WORD, 1, DATAGRAM, FAMILY);
    code.load(WORD, 2, ENTRY, offset_of!(PortEntry, family) as i16);
    code.jump_unless_equal(1, 2, other);
    code.compare_address(offset_of!(PortEntry, address), LOCAL, other);
    code.jump(found);
    code.bind(other);
    code.load(WORD, INDEX, ENTRY, offset_of!(PortEntry, next) as i16);
    code.jump_if(INDEX, 0, pass);
}

/// Lets `WHICH` be a discard socket for everything while the port is left unread.
fn throw_away_unread(code: &mut Assembler, assign: Label) {
    let read = code.label();
    code.load(LONG, 1, ENTRY, offset_of!(PortEntry, unread) as i16);
    code.jump_if(1, 0, read);
    code.set(1, 1);
    code.count(ENTRY, 1, offset_of!(PortEntry, dropped) as i16);
    code.add(WHICH, 2);
    code.jump(assign);
    code.bind(read);
}

/// Notes that an admitted source was heard; lets `WHICH` be a discard socket for a stranger.
fn judge_source(code: &mut Assembler, ports: i32, assign: Label, pass: Label) {
    let heard = offset_of!(PortEntry, heard_ns) as i16;
    let known = code.label();
    for place in 0..2 {
        let source = offset_of!(PortEntry, sources) + place * size_of::<Source>();
        let (other, same_port) = (code.label(), code.label());
        code.load(WORD, 1, ENTRY, (source + offset_of!(Source, port)) as i16);
        code.jump_if(1, super::ANY_PORT as i32, same_port);
        code.load(HALF, 2, DATAGRAM, REMOTE_PORT);
        code.jump_unless_equal(1, 2, other);
        code.bind(same_port);
        code.compare_address(source + offset_of!(Source, address), REMOTE, other);
        code.jump(known);
        code.bind(other);
    }
    code.call(COARSE_CLOCK);
    code.load(LONG, 1, ENTRY, offset_of!(PortEntry, closed_from_ns) as i16);
    code.jump_if_less(0, 1, assign);
    code.load(LONG, 1, ENTRY, heard);
    code.subtract(0, 1);
    code.load(LONG, 1, ENTRY, offset_of!(PortEntry, silent_ns) as i16);
    // Heard within `silent`: on to the discard sockets.
    let stranger = code.label();
    code.jump_if_less(0, 1, stranger);
    code.jump(assign);
    code.bind(stranger);
    code.set(INDEX, 0);
    code.look_up(ports, INDEX, pass);
    code.set(1, 1);
    code.count(0, 1, offset_of!(PortEntry, strangers) as i16);
    code.add(WHICH, 2);
    code.jump(assign);
    code.bind(known);
    code.call(COARSE_CLOCK);
    code.store_long(ENTRY, 0, heard);
}
