//! How plain data becomes bytes: a record is its fields one after the other, numbers in little
//! endian, strings and lists behind their length. Its few lines stand in for a serialisation library,
//! whose size every guest that boots would copy.
//!
//! ```text
//!  u8, u32, u64 │ number, little endian      String │ length: u32, bytes of UTF-8
//!  [u8; N]      │ the bytes                  Vec    │ length: u32, items
//!  Ipv4Addr     │ 4 bytes, network order     Option │ 0, or 1 and the value
//! ```

use alloc::{string::String, vec::Vec};
use core::{error::Error, fmt, net::Ipv4Addr};

/// The bytes are not what they should be: too few, or no such value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError;

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes that encode no such record")
    }
}

impl Error for DecodeError {}

/// A part of a record.
pub(crate) trait Field: Sized {
    /// Appends its bytes.
    fn put(&self, to: &mut Vec<u8>);

    /// Takes its bytes from the front.
    fn take(from: &mut &[u8]) -> Result<Self, DecodeError>;

    /// Its bytes alone.
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.put(&mut bytes);
        bytes
    }
}

/// Makes a structure a record of its fields, all of which are to be named in their order.
macro_rules! record {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::encoding::Field for $name {
            fn put(&self, to: &mut alloc::vec::Vec<u8>) {
                $(self.$field.put(to);)*
            }

            fn take(from: &mut &[u8]) -> Result<Self, $crate::encoding::DecodeError> {
                Ok(Self { $($field: $crate::encoding::Field::take(from)?),* })
            }
        }
    };
}
pub(crate) use record;

fn split<'a>(from: &mut &'a [u8], len: usize) -> Result<&'a [u8], DecodeError> {
    let (bytes, rest) = from.split_at_checked(len).ok_or(DecodeError)?;
    *from = rest;
    Ok(bytes)
}

impl<const N: usize> Field for [u8; N] {
    fn put(&self, to: &mut Vec<u8>) {
        to.extend_from_slice(self);
    }

    fn take(from: &mut &[u8]) -> Result<Self, DecodeError> {
        split(from, N)?.try_into().map_err(|_| DecodeError)
    }
}

macro_rules! number {
    ($($kind:ty),*) => {$(
        impl Field for $kind {
            fn put(&self, to: &mut Vec<u8>) {
                self.to_le_bytes().put(to);
            }

            fn take(from: &mut &[u8]) -> Result<Self, DecodeError> {
                Field::take(from).map(Self::from_le_bytes)
            }
        }
    )*};
}
number!(u8, u32, u64);

impl Field for Ipv4Addr {
    fn put(&self, to: &mut Vec<u8>) {
        self.octets().put(to);
    }

    fn take(from: &mut &[u8]) -> Result<Self, DecodeError> {
        <[u8; 4]>::take(from).map(Self::from)
    }
}

impl Field for String {
    fn put(&self, to: &mut Vec<u8>) {
        (self.len() as u32).put(to);
        to.extend_from_slice(self.as_bytes());
    }

    #[inline(never)] // As below.
    fn take(from: &mut &[u8]) -> Result<Self, DecodeError> {
        let len = u32::take(from)? as usize;
        core::str::from_utf8(split(from, len)?).map(Self::from).map_err(|_| DecodeError)
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, to: &mut Vec<u8>) {
        u8::from(self.is_some()).put(to);
        if let Some(value) = self {
            value.put(to);
        }
    }

    fn take(from: &mut &[u8]) -> Result<Self, DecodeError> {
        match u8::take(from)? {
            0 => Ok(None),
            1 => T::take(from).map(Some),
            _ => Err(DecodeError),
        }
    }
}

impl<T: Field> Field for Vec<T> {
    fn put(&self, to: &mut Vec<u8>) {
        (self.len() as u32).put(to);
        for item in self {
            item.put(to);
        }
    }

    /// Sets nothing aside for the length that is claimed: each item has at least one byte, so a false
    /// one ends with the input.
    #[inline(never)] // One copy for each kind of item: PID 1 is to be small.
    fn take(from: &mut &[u8]) -> Result<Self, DecodeError> {
        let len = u32::take(from)?;
        let mut items = Self::new();
        for _ in 0..len {
            items.push(T::take(from)?);
        }
        Ok(items)
    }
}

impl<A: Field, B: Field> Field for (A, B) {
    fn put(&self, to: &mut Vec<u8>) {
        self.0.put(to);
        self.1.put(to);
    }

    fn take(from: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_beyond_the_bytes_are_errors() {
        assert_eq!(String::take(&mut &[5, 0, 0, 0, b'a'][..]), Err(DecodeError));
        assert_eq!(String::take(&mut &[1, 0, 0, 0, 0xff][..]), Err(DecodeError));
        assert_eq!(Vec::<u32>::take(&mut &[0xff; 11][..]), Err(DecodeError));
        assert_eq!(<Option<u8> as Field>::take(&mut &[2, 1][..]), Err(DecodeError));
        assert_eq!(u64::take(&mut &[0; 7][..]), Err(DecodeError));
    }

    #[test]
    fn the_layout_is_as_described() {
        let bytes = (String::from("ab"), vec![7_u32]).to_bytes();
        assert_eq!(bytes, [2, 0, 0, 0, b'a', b'b', 1, 0, 0, 0, 7, 0, 0, 0]);
    }
}
