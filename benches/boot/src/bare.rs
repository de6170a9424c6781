//! The floor: a process that opens KVM, makes a virtual machine with one page and one vCPU, runs
//! it to its first exit and ends. Every figure of a monitor contains it.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    fs::File,
    io::{self, Read, Write},
    os::fd::AsRawFd,
};

use serde::Serialize;

use crate::child::{self, close_on_exec_pipe, now_ns};

/// ioctl numbers of linux/kvm.h: `_IO(KVMIO, n)`, `_IOW` and `_IOR` with the size of what they take.
const KVM_CREATE_VM: libc::c_ulong = 0xae01;
const KVM_GET_VCPU_MMAP_SIZE: libc::c_ulong = 0xae04;
const KVM_CREATE_VCPU: libc::c_ulong = 0xae41;
const KVM_SET_USER_MEMORY_REGION: libc::c_ulong = 0x4020_ae46;
const KVM_RUN: libc::c_ulong = 0xae80;
const KVM_SET_REGS: libc::c_ulong = 0x4090_ae82;
const KVM_GET_SREGS: libc::c_ulong = 0x8138_ae83;
const KVM_SET_SREGS: libc::c_ulong = 0x4138_ae84;

/// `out %al, $0x10; hlt`.
const CODE: [u8; 3] = [0xe6, 0x10, 0xf4];
const PAGE: usize = 4096;

/// Figures of one run.
#[derive(Serialize)]
pub struct Figures {
    exec_to_exit_ns: u64,
    exit_to_gone_ns: u64,
}

/// Starts it and waits for its end.
///
/// # Errors
/// It cannot be started, or fails.
pub fn start() -> io::Result<Figures> {
    let (reader, writer) = close_on_exec_pipe()?;
    let argv = [c"/proc/self/exe", c"bare"].map(CString::from);
    let child = child::start(&argv, [0, writer.as_raw_fd(), 2], &[])?;
    drop(writer);
    let exec_ns = child.exec_ns;
    let gone_ns = child.wait()?;
    let mut stamp = [0; 8];
    File::from(reader).read_exact(&mut stamp)?;
    let exit_ns = u64::from_le_bytes(stamp);
    Ok(Figures { exec_to_exit_ns: exit_ns - exec_ns, exit_to_gone_ns: gone_ns - exit_ns })
}

/// What the child does; writes the time of the first exit to standard output.
///
/// # Errors
/// KVM fails.
pub fn run() -> io::Result<()> {
    let kvm = File::options().read(true).write(true).open("/dev/kvm")?;
    let call = |fd: i32, request: libc::c_ulong, argument: u64| {
        // SAFETY: each request below is given the structure of its size from linux/kvm.h, as an
        // array of words that lives until the call returns, or a plain number.
        match unsafe { libc::ioctl(fd, request, argument) } {
            -1 => Err(io::Error::last_os_error()),
            value => Ok(value),
        }
    };
    let vm = call(kvm.as_raw_fd(), KVM_CREATE_VM, 0)?;
    let map = |fd: i32, length: usize, flags: i32| {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd,
                0,
            )
        };
        if at == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(at) }
    };
    let page = map(-1, PAGE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)?;
    // SAFETY: the page was just mapped and is longer than the code.
    unsafe { std::ptr::copy_nonoverlapping(CODE.as_ptr(), page.cast(), CODE.len()) };
    // struct kvm_userspace_memory_region: slot and flags, guest address, length, host address.
    let region = [0, 0, PAGE as u64, page as u64];
    call(vm, KVM_SET_USER_MEMORY_REGION, region.as_ptr() as u64)?;
    let vcpu = call(vm, KVM_CREATE_VCPU, 0)?;
    let length = call(kvm.as_raw_fd(), KVM_GET_VCPU_MMAP_SIZE, 0)?;
    map(vcpu, length as usize, libc::MAP_SHARED)?;
    // struct kvm_sregs begins with the code segment: base, then limit and selector. From reset it
    // is at 0xffff0000; here it is at 0.
    let mut sregs = [0_u64; 0x138 / 8];
    call(vcpu, KVM_GET_SREGS, sregs.as_mut_ptr() as u64)?;
    sregs[0] = 0;
    sregs[1] &= !(0xffff << 32);
    call(vcpu, KVM_SET_SREGS, sregs.as_ptr() as u64)?;
    // struct kvm_regs: 16 registers, then the instruction pointer and the flags.
    let mut regs = [0_u64; 0x90 / 8];
    regs[17] = 2;
    call(vcpu, KVM_SET_REGS, regs.as_ptr() as u64)?;
    call(vcpu, KVM_RUN, 0)?;
    io::stdout().write_all(&now_ns().to_le_bytes())?;
    // Standard output is line buffered by the library.
    io::stdout().flush()
}
