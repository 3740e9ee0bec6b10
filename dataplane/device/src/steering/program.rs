//! The steering program, instruction by instruction (Linux `instruction-set.rst`).
//!
//! ```text
//!   port = ports[datagram.local_port]
//!   if port.family == datagram.family and port.address == datagram.local_address:
//!       the datagram goes to sockets[family == IPv6]
//!   else, and whenever anything fails: to whom it would have gone without us
//! ```

use std::mem::offset_of;

use super::PortEntry;

// `struct bpf_sk_lookup`.
const FAMILY: i16 = 8;
const PROTOCOL: i16 = 12;
const LOCAL_IP4: i16 = 40;
const LOCAL_IP6: i16 = 44;
const LOCAL_PORT: i16 = 60;

const MAP_LOOKUP: i32 = 1;
const SOCKET_RELEASE: i32 = 86;
const SOCKET_ASSIGN: i32 = 124;

/// The stack's frame pointer.
const FRAME: u8 = 10;
/// Where a key stands on the stack.
const KEY: i16 = -4;

/// Where a jump leads when it is not known yet.
const TO_PASS: i16 = i16::MIN;

struct Assembler(Vec<u64>);

impl Assembler {
    fn push(&mut self, opcode: u8, target: u8, source: u8, offset: i16, value: i32) {
        let [low, high] = offset.to_ne_bytes();
        let mut bytes = [opcode, source << 4 | target, low, high, 0, 0, 0, 0];
        bytes[4..].copy_from_slice(&value.to_ne_bytes());
        self.0.push(u64::from_ne_bytes(bytes));
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

    /// `target = *(u32 *)(source + offset)`.
    fn load(&mut self, target: u8, source: u8, offset: i16) {
        self.push(0x61, target, source, offset, 0);
    }

    /// `*(u32 *)(target + offset) = source`.
    fn store(&mut self, target: u8, source: u8, offset: i16) {
        self.push(0x63, target, source, offset, 0);
    }

    fn call(&mut self, function: i32) {
        self.push(0x85, 0, 0, 0, function);
    }

    /// Leaves the datagram alone unless two registers are equal.
    fn pass_unless_equal(&mut self, left: u8, right: u8) {
        self.push(0x5d, left, right, TO_PASS, 0);
    }

    fn pass_unless(&mut self, register: u8, value: i32) {
        self.push(0x55, register, 0, TO_PASS, value);
    }

    fn pass_if(&mut self, register: u8, value: i32) {
        self.push(0x15, register, 0, TO_PASS, value);
    }

    /// Looks register `key` up in a map: register 0 is the value or null.
    fn look_up(&mut self, map: i32, key: u8) {
        self.store(FRAME, key, KEY);
        // A 64-bit constant, which the kernel takes for a map's descriptor.
        self.push(0x18, 1, 1, 0, map);
        self.push(0, 0, 0, 0, 0);
        self.copy(2, FRAME);
        self.add(2, i32::from(KEY));
        self.call(MAP_LOOKUP);
    }

    /// Ends with "leave it as it is", to which the open jumps lead.
    fn finish(mut self) -> Vec<u64> {
        let end = self.0.len();
        for (at, word) in self.0.iter_mut().enumerate() {
            let mut bytes = word.to_ne_bytes();
            if i16::from_ne_bytes([bytes[2], bytes[3]]) == TO_PASS {
                let distance = (end - at - 1) as i16;
                bytes[2..4].copy_from_slice(&distance.to_ne_bytes());
                *word = u64::from_ne_bytes(bytes);
            }
        }
        self.set(0, 1);
        self.push(0x95, 0, 0, 0, 0);
        self.0
    }
}

/// The program, for these two maps (their descriptors).
pub(super) fn steering(ports: i32, sockets: i32) -> Vec<u64> {
    const DATAGRAM: u8 = 6;
    const ENTRY: u8 = 7;
    const WHICH: u8 = 8;
    let family = offset_of!(PortEntry, family) as i16;
    let address = offset_of!(PortEntry, address) as i16;
    let mut code = Assembler(Vec::new());
    code.copy(DATAGRAM, 1);
    code.load(1, DATAGRAM, PROTOCOL);
    code.pass_unless(1, libc::IPPROTO_UDP);
    code.load(1, DATAGRAM, LOCAL_PORT);
    code.look_up(ports, 1);
    code.pass_if(0, 0);
    code.copy(ENTRY, 0);
    code.load(1, DATAGRAM, FAMILY);
    code.load(2, ENTRY, family);
    code.pass_unless_equal(1, 2);
    code.set(WHICH, 1);
    // IPv4 goes on behind the four comparisons of IPv6.
    let fork = code.0.len();
    code.push(0x15, 1, 0, 0, libc::AF_INET);
    for word in 0..4 {
        code.load(1, DATAGRAM, LOCAL_IP6 + 4 * word);
        code.load(2, ENTRY, address + 4 * word);
        code.pass_unless_equal(1, 2);
    }
    let skip = code.0.len();
    code.push(0x05, 0, 0, 0, 0);
    jump_to_end(&mut code, fork);
    code.set(WHICH, 0);
    code.load(1, DATAGRAM, LOCAL_IP4);
    code.load(2, ENTRY, address);
    code.pass_unless_equal(1, 2);
    jump_to_end(&mut code, skip);
    code.look_up(sockets, WHICH);
    code.pass_if(0, 0);
    code.copy(ENTRY, 0);
    code.copy(1, DATAGRAM);
    code.copy(2, ENTRY);
    code.set(3, 0);
    code.call(SOCKET_ASSIGN);
    code.copy(1, ENTRY);
    code.call(SOCKET_RELEASE);
    code.finish()
}

/// Makes the jump at `at` lead to the next instruction written.
fn jump_to_end(code: &mut Assembler, at: usize) {
    let distance = (code.0.len() - at - 1) as i16;
    let mut bytes = code.0[at].to_ne_bytes();
    bytes[2..4].copy_from_slice(&distance.to_ne_bytes());
    code.0[at] = u64::from_ne_bytes(bytes);
}
