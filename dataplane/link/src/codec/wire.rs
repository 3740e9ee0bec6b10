//! Reading and writing of single fields.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::CodecError;

/// Appends fields to a message.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

/// Takes fields off a message.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Writer<'_> {
    pub(super) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// Bytes of a fixed number.
    pub(super) fn array<const N: usize>(&mut self, value: &[u8; N]) {
        self.0.extend_from_slice(value);
    }

    pub(super) fn boolean(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// A count of entries, judged against its limit.
    pub(super) fn count(&mut self, count: usize, limit: usize) -> Result<(), CodecError> {
        if count > limit {
            return Err(CodecError::TooLarge);
        }
        self.u16(u16::try_from(count).map_err(|_| CodecError::TooLarge)?);
        Ok(())
    }

    pub(super) fn bytes(&mut self, bytes: &[u8], limit: usize) -> Result<(), CodecError> {
        self.count(bytes.len(), limit)?;
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    pub(super) fn ip(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => {
                self.u8(4);
                self.0.extend_from_slice(&v4.octets());
            }
            IpAddr::V6(v6) => {
                self.u8(6);
                self.0.extend_from_slice(&v6.octets());
            }
        }
    }

    pub(super) fn address(&mut self, address: SocketAddr) {
        self.ip(address.ip());
        self.u16(address.port());
        if let SocketAddr::V6(v6) = address {
            self.u32(v6.flowinfo());
            self.u32(v6.scope_id());
        }
    }

    /// A presence byte, then the value.
    pub(super) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.boolean(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], CodecError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(CodecError::Cut)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        Ok(self.take(N)?.try_into().expect("took exactly N bytes"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, CodecError> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u16(&mut self) -> Result<u16, CodecError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(super) fn u32(&mut self) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn boolean(&mut self) -> Result<bool, CodecError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CodecError::Invalid("boolean")),
        }
    }

    pub(super) fn count(&mut self, limit: usize) -> Result<usize, CodecError> {
        let count = usize::from(self.u16()?);
        if count > limit {
            Err(CodecError::TooLarge)
        } else {
            Ok(count)
        }
    }

    pub(super) fn bytes(&mut self, limit: usize) -> Result<Vec<u8>, CodecError> {
        let count = self.count(limit)?;
        Ok(self.take(count)?.to_vec())
    }

    pub(super) fn ip(&mut self) -> Result<IpAddr, CodecError> {
        match self.u8()? {
            4 => Ok(Ipv4Addr::from(self.array::<4>()?).into()),
            6 => Ok(Ipv6Addr::from(self.array::<16>()?).into()),
            _ => Err(CodecError::Invalid("address family")),
        }
    }

    pub(super) fn address(&mut self) -> Result<SocketAddr, CodecError> {
        let ip = self.ip()?;
        let port = self.u16()?;
        Ok(match ip {
            IpAddr::V4(v4) => SocketAddrV4::new(v4, port).into(),
            IpAddr::V6(v6) => SocketAddrV6::new(v6, port, self.u32()?, self.u32()?).into(),
        })
    }

    pub(super) fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Option<T>, CodecError> {
        if self.boolean()? {
            read(self).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Nothing may follow.
    pub(super) fn end(self) -> Result<(), CodecError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(CodecError::Trailing)
        }
    }
}
