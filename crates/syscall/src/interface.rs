//! The name of an interface in the fixed size the kernel takes it in, so that the process between
//! clone and exec needs no allocation to pass it on.

use alloc::{borrow::ToOwned, string::String};
use core::{error::Error, fmt};

/// Not a name for a network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameError(String);

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = "use 1 to 15 letters, digits, `-`, `_` and `.`";
        write!(f, "`{}` cannot name a network interface: {rule}", self.0)
    }
}

impl Error for NameError {}

/// An interface's name: 1 to 15 bytes and a closing NUL (IFNAMSIZ of linux/if.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface([u8; libc::IFNAMSIZ]);

impl Interface {
    /// The loopback interface of every network namespace.
    pub const LOOPBACK: Self = Self(*b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    /// What an instance's own end is called.
    pub const ETH0: Self = Self(*b"eth0\0\0\0\0\0\0\0\0\0\0\0\0");

    /// Takes a name.
    ///
    /// # Errors
    /// It is empty, too long, or holds characters that would need quoting somewhere.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let valid = (1..libc::IFNAMSIZ).contains(&name.len())
            && name.bytes().all(plain)
            && !matches!(name, "." | "..");
        if !valid {
            return Err(NameError(name.to_owned()));
        }
        let mut bytes = [0; libc::IFNAMSIZ];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok(Self(bytes))
    }

    /// The name with its closing NUL.
    pub fn as_bytes_with_nul(&self) -> &[u8] {
        let len = self.0.iter().position(|&byte| byte == 0).map_or(self.0.len(), |len| len + 1);
        &self.0[..len]
    }

    /// As the fields of ioctl structures hold it.
    pub(crate) fn field(&self) -> [libc::c_char; libc::IFNAMSIZ] {
        self.0.map(|byte| byte as libc::c_char)
    }
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.as_bytes_with_nul();
        f.write_str(core::str::from_utf8(&name[..name.len() - 1]).expect("`new` takes ASCII only"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_the_kernels_field() {
        assert_eq!(Interface::new("c-123456789ab").unwrap().to_string(), "c-123456789ab");
        assert_eq!(Interface::new("lo").unwrap(), Interface::LOOPBACK);
        assert_eq!(Interface::ETH0.as_bytes_with_nul(), b"eth0\0");
        for bad in ["", "sixteen-letters-", "a b", "a/b", ".", "..", "é"] {
            assert!(Interface::new(bad).is_err(), "{bad}");
        }
    }
}
