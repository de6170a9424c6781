//! The header of every packet (`struct virtio_vsock_hdr`, 5.10.6).

/// Bytes of a header.
pub const HEADER: usize = 44;

/// Operations (`enum virtio_vsock_op`).
pub mod op {
    /// Asks for a connection.
    pub const REQUEST: u16 = 1;
    /// Grants one.
    pub const RESPONSE: u16 = 2;
    /// There is no such connection (any more).
    pub const RST: u16 = 3;
    /// One or both directions end.
    pub const SHUTDOWN: u16 = 4;
    /// Bytes of the stream.
    pub const RW: u16 = 5;
    /// Nothing but the fields every packet has.
    pub const CREDIT_UPDATE: u16 = 6;
    /// Asks for an update.
    pub const CREDIT_REQUEST: u16 = 7;
}

/// The type of socket there is, `VIRTIO_VSOCK_TYPE_STREAM`.
pub const STREAM: u16 = 1;

/// Flags of SHUTDOWN: its sender will take nothing more …
pub const SHUTDOWN_RCV: u32 = 1;
/// … or send nothing more.
pub const SHUTDOWN_SEND: u32 = 2;
/// Both.
pub const SHUTDOWN_BOTH: u32 = SHUTDOWN_RCV | SHUTDOWN_SEND;

/// A packet's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// Context ID of the sender.
    pub src_cid: u64,
    /// Context ID of the receiver.
    pub dst_cid: u64,
    /// Port of the sender.
    pub src_port: u32,
    /// Port of the receiver.
    pub dst_port: u32,
    /// Bytes that follow.
    pub len: u32,
    /// Type of socket.
    pub kind: u16,
    /// Operation.
    pub op: u16,
    /// Flags of the operation.
    pub flags: u32,
    /// Bytes the sender has room for in all.
    pub buf_alloc: u32,
    /// Bytes the sender has taken out of that room so far.
    pub fwd_cnt: u32,
}

impl Header {
    /// Reads a header.
    pub fn parse(bytes: &[u8; HEADER]) -> Self {
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"));
        let half = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().expect("2 bytes"));
        let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
        Self {
            src_cid: long(0),
            dst_cid: long(8),
            src_port: word(16),
            dst_port: word(20),
            len: word(24),
            kind: half(28),
            op: half(30),
            flags: word(32),
            buf_alloc: word(36),
            fwd_cnt: word(40),
        }
    }

    /// Writes it.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut at = 0;
        let mut put = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        put(&self.src_cid.to_le_bytes());
        put(&self.dst_cid.to_le_bytes());
        put(&self.src_port.to_le_bytes());
        put(&self.dst_port.to_le_bytes());
        put(&self.len.to_le_bytes());
        put(&self.kind.to_le_bytes());
        put(&self.op.to_le_bytes());
        put(&self.flags.to_le_bytes());
        put(&self.buf_alloc.to_le_bytes());
        put(&self.fwd_cnt.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_specification_says() {
        let bytes: [u8; HEADER] = std::array::from_fn(|index| index as u8);
        let header = Header::parse(&bytes);
        assert_eq!(header.dst_cid.to_le_bytes(), bytes[8..16]);
        assert_eq!(header.dst_port, u32::from_le_bytes([20, 21, 22, 23]));
        assert_eq!((header.kind, header.op), (29 << 8 | 28, 31 << 8 | 30));
        assert_eq!(header.fwd_cnt.to_le_bytes(), bytes[40..]);
        assert_eq!(header.encode(), bytes);
    }
}
