//! Packet devices: batches of datagrams in, batches out.
//!
//! A worker owns one [`Device`] and is compiled once for each kind of it. A device holds bound UDP
//! sockets by **slot** (an index the conductor chooses), receives from all of them at once, and
//! sends from any of them. Packets live in [`Buffer`]s, owned tokens of the device's pool: what was
//! received is changed in place and sent on without a copy, or handed back.
//!
//! | device | how | when |
//! |---|---|---|
//! | [`UringDevice`] | io_uring: multishot receive, one submission a cycle; one receive socket for all ports where a BPF program may steer, frames by packet socket where [`Routes`] finds them fit | the default |
//! | [`MmsgDevice`] | epoll, `recvmmsg`, `sendmmsg` | where io_uring is blocked |
//! | [`SimDevice`] | memory | tests |
//!
//! Beside them, [`packet`] sends and receives whole frames for the load generator.
//!
//! [`open`] chooses. All packet-I/O unsafe lives in this crate.

mod address;
mod buffer;
mod device;
mod egress;
mod meminfo;
pub mod mmsg;
pub mod packet;
mod routes;
mod select;
pub mod sim;
mod socket;
mod steering;
mod uring;

pub use buffer::{BUFFER_BYTES, Buffer, Pool, TAIL_ROOM_BYTES};
pub use device::{Admission, Config, Counters, Device, DeviceError, Received, SlotEvent, Wake};
pub use meminfo::socket_drops;
pub use mmsg::MmsgDevice;
pub use routes::{RouteSeat, Routes};
pub use select::{Backend, Opened, open};
pub use sim::{SimDevice, SimNet};
pub use socket::media_socket;
pub use uring::UringDevice;
