//! Setting up an interface by the ioctls of netdevice(7), arp(7) and rtnetlink's elder SIOCADDRT.
//! Allocates nothing and takes no lock: it runs in a container's child between clone and exec, in
//! the guest's PID 1 and on the host's end alike.
#![allow(unsafe_code)] // ioctls on C structures.

use core::{fmt, mem, net::Ipv4Addr};

use crate::{Errno, Interface, call};

/// A step of setting up an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Opening the socket the ioctls go through.
    Open,
    /// SIOCSIFHWADDR.
    Mac,
    /// RTM_NEWADDR.
    Address,
    /// SIOCGIFFLAGS and SIOCSIFFLAGS.
    Up,
    /// SIOCSARP.
    Neighbour,
    /// SIOCADDRT.
    Route,
}

impl Step {
    /// The step in words, to follow "cannot".
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open a control socket (AF_INET)",
            Self::Mac => "set the hardware address (SIOCSIFHWADDR)",
            Self::Address => "set the address (RTM_NEWADDR)",
            Self::Up => "bring the interface up (SIOCSIFFLAGS)",
            Self::Neighbour => "add the static neighbour (SIOCSARP)",
            Self::Route => "add the default route (SIOCADDRT)",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A step that failed, and the error number (errno(3)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepError {
    /// Which step.
    pub step: Step,
    /// Why.
    pub errno: i32,
}

/// Another host on the link, whose hardware address is known beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neighbour {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its hardware address.
    pub mac: [u8; 6],
}

/// How an interface is to be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Hardware address to give it; none leaves it as it is.
    pub mac: Option<[u8; 6]>,
    /// Its address.
    pub address: Ipv4Addr,
    /// Length of its network's prefix, at most 32.
    pub prefix: u8,
    /// A neighbour known beforehand, so that no ARP is waited for.
    pub neighbour: Option<Neighbour>,
    /// Default route.
    pub gateway: Option<Ipv4Addr>,
}

/// Sets up one interface and brings it up.
///
/// # Errors
/// The kernel refuses a step.
pub fn configure(interface: &Interface, settings: &Settings) -> Result<(), StepError> {
    Control::open()?.configure(interface, settings)
}

/// A socket in the current network namespace that interfaces are set up through. Closed when
/// dropped.
#[derive(Debug)]
pub struct Control(usize);

impl Control {
    /// Opens one.
    ///
    /// # Errors
    /// There are no sockets of AF_INET, or no descriptors left.
    pub fn open() -> Result<Self, StepError> {
        let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
        // SAFETY: socket(2) takes three integers.
        let fd =
            unsafe { call(libc::SYS_socket, [libc::AF_INET as usize, kind as usize, 0, 0, 0, 0]) };
        fd.map(Self).map_err(|Errno(errno)| StepError { step: Step::Open, errno })
    }

    /// Sets up an interface and brings it up. Neighbour and route come after that, since the route's
    /// gateway must be reachable.
    ///
    /// # Errors
    /// The kernel refuses a step.
    pub fn configure(&self, interface: &Interface, settings: &Settings) -> Result<(), StepError> {
        if let Some(mac) = settings.mac {
            self.set_mac(interface, mac)?;
        }
        self.add_address(interface, settings)?;
        self.bring_up(interface)?;
        if let Some(neighbour) = settings.neighbour {
            self.add_neighbour(interface, neighbour)?;
        }
        settings.gateway.map_or(Ok(()), |gateway| self.add_default_route(gateway))
    }

    /// Brings an interface up that needs no more, such as [`Interface::LOOPBACK`], which the kernel
    /// gives its address itself.
    ///
    /// # Errors
    /// There is no such interface, or it may not be changed.
    pub fn bring_up(&self, interface: &Interface) -> Result<(), StepError> {
        let mut request = request(interface);
        self.ioctl(libc::SIOCGIFFLAGS, &mut request, Step::Up)?;
        // SAFETY: SIOCGIFFLAGS has just filled in this field.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
        self.ioctl(libc::SIOCSIFFLAGS, &mut request, Step::Up)
    }

    fn set_mac(&self, interface: &Interface, mac: [u8; 6]) -> Result<(), StepError> {
        let mut request = request(interface);
        request.ifr_ifru.ifru_hwaddr = ethernet(mac);
        self.ioctl(libc::SIOCSIFHWADDR, &mut request, Step::Mac)
    }

    /// Address and prefix by one message (rtnetlink(7), RTM_NEWADDR): of the two ioctls that would
    /// do the same, the second has the kernel make all routes of the first anew.
    fn add_address(&self, interface: &Interface, settings: &Settings) -> Result<(), StepError> {
        let mut request = request(interface);
        self.ioctl(libc::SIOCGIFINDEX, &mut request, Step::Address)?;
        // SAFETY: SIOCGIFINDEX has just filled in this field.
        let index = unsafe { request.ifr_ifru.ifru_ifindex };
        let prefix = settings.prefix.min(32);
        let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let broadcast = Ipv4Addr::from(u32::from(settings.address) | hosts);
        let message = NewAddress {
            len: mem::size_of::<NewAddress>() as u32,
            kind: libc::RTM_NEWADDR,
            flags: (libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE) as u16,
            family: libc::AF_INET as u8,
            prefix,
            index: index as u32,
            attributes: [
                Attribute::new(libc::IFA_LOCAL, settings.address),
                Attribute::new(libc::IFA_ADDRESS, settings.address),
                Attribute::new(libc::IFA_BROADCAST, broadcast),
            ],
            ..NewAddress::default()
        };
        let failed = |Errno(errno)| StepError { step: Step::Address, errno };
        let kind = (libc::SOCK_RAW | libc::SOCK_CLOEXEC) as usize;
        let family = libc::AF_NETLINK as usize;
        // SAFETY: socket(2) takes three integers.
        let socket = unsafe {
            call(libc::SYS_socket, [family, kind, libc::NETLINK_ROUTE as usize, 0, 0, 0])
        };
        // Closed when dropped, as the other one is.
        let socket = Self(socket.map_err(failed)?);
        let place = &raw const message as usize;
        // SAFETY: the kernel reads as many bytes as the message has; without an address it is for
        // the kernel itself.
        unsafe { call(libc::SYS_sendto, [socket.0, place, message.len as usize, 0, 0, 0]) }
            .map_err(failed)?;
        let mut answer = Answer::default();
        let (place, size) = (&raw mut answer as usize, mem::size_of::<Answer>());
        // SAFETY: the kernel writes at most `size` bytes there, any of which are an `Answer`.
        unsafe { call(libc::SYS_recvfrom, [socket.0, place, size, 0, 0, 0]) }.map_err(failed)?;
        match answer.error {
            0 if answer.kind == libc::NLMSG_ERROR as u16 => Ok(()),
            0 => Err(failed(Errno(libc::EBADMSG))),
            error => Err(failed(Errno(error.wrapping_neg()))),
        }
    }

    fn add_neighbour(&self, interface: &Interface, neighbour: Neighbour) -> Result<(), StepError> {
        // SAFETY: all zeroes are a valid arpreq, plain old data.
        let mut request: libc::arpreq = unsafe { mem::zeroed() };
        request.arp_pa = internet(neighbour.address);
        request.arp_ha = ethernet(neighbour.mac);
        request.arp_flags = ATF_PERM | ATF_COM;
        request.arp_dev = interface.field();
        self.ioctl(libc::SIOCSARP, &mut request, Step::Neighbour)
    }

    fn add_default_route(&self, gateway: Ipv4Addr) -> Result<(), StepError> {
        // SAFETY: all zeroes are a valid rtentry: numbers, addresses and a null name.
        let mut request: libc::rtentry = unsafe { mem::zeroed() };
        request.rt_dst = internet(Ipv4Addr::UNSPECIFIED);
        request.rt_genmask = internet(Ipv4Addr::UNSPECIFIED);
        request.rt_gateway = internet(gateway);
        request.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        self.ioctl(libc::SIOCADDRT, &mut request, Step::Route)
    }

    fn ioctl<T>(
        &self,
        number: libc::c_ulong,
        argument: &mut T,
        step: Step,
    ) -> Result<(), StepError> {
        // SAFETY: every caller passes the number whose argument is a `T` (ifreq for SIOC?IF*,
        // arpreq for SIOCSARP, rtentry for SIOCADDRT); it is initialised and may be written.
        let result = unsafe {
            call(libc::SYS_ioctl, [self.0, number as usize, &raw mut *argument as usize, 0, 0, 0])
        };
        result.map(drop).map_err(|Errno(errno)| StepError { step, errno })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // SAFETY: the descriptor is this value's own and is closed once.
        let _ = unsafe { call(libc::SYS_close, [self.0, 0, 0, 0, 0, 0]) };
    }
}

/// An nlmsghdr (netlink(7)), an ifaddrmsg and its attributes (rtnetlink(7)).
#[repr(C)]
#[derive(Default)]
struct NewAddress {
    len: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    family: u8,
    prefix: u8,
    address_flags: u8,
    scope: u8,
    index: u32,
    attributes: [Attribute; 3],
}

/// An rtattr that holds an IPv4 address.
#[repr(C)]
#[derive(Default)]
struct Attribute {
    len: u16,
    kind: u16,
    value: [u8; 4],
}

impl Attribute {
    fn new(kind: u16, address: Ipv4Addr) -> Self {
        Self { len: mem::size_of::<Self>() as u16, kind, value: address.octets() }
    }
}

/// An nlmsghdr and the nlmsgerr that acknowledges a request; the rest of it is left unread.
#[repr(C)]
#[derive(Default)]
struct Answer {
    len: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
    error: i32,
}

/// Flags of arpreq (linux/if_arp.h): the entry is complete, and stays.
const ATF_COM: libc::c_int = 0x02;
const ATF_PERM: libc::c_int = 0x04;

/// An ifreq for this interface, all else zero.
pub fn request(interface: &Interface) -> libc::ifreq {
    // SAFETY: all zeroes are a valid ifreq, plain old data.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    request.ifr_name = interface.field();
    request
}

/// A sockaddr of an IPv4 address (ip(7)): port 0, then the address in network order.
fn internet(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (place, byte) in data[2..6].iter_mut().zip(address.octets()) {
        *place = byte as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

/// A sockaddr of an Ethernet address (netdevice(7)).
fn ethernet(mac: [u8; 6]) -> libc::sockaddr {
    let mut data = [0; 14];
    for (place, byte) in data.iter_mut().zip(mac) {
        *place = byte as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: data }
}
