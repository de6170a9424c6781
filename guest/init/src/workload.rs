//! Starts the workload: the same view of its process as the container gives, right down to
//! capabilities.
#![allow(unsafe_code)]

use alloc::{borrow::ToOwned, ffi::CString, string::String, vec::Vec};

use compare_wire::{DEFAULT_CAPABILITIES, GuestConfig, Kind};

use crate::{
    failure::Failure,
    monitor::{self, Monitor},
    root::c_string,
    sys::{self, Errno},
};

/// Highest capability a 64-bit set can hold; the kernel refuses those it does not know.
const LAST_CAPABILITY: usize = 63;

/// Bytes of stack for the child: it nests few calls and allocates nothing.
const STACK_BYTES: usize = 32 << 10;

/// Everything the child needs, prepared before it exists.
struct Plan<'a> {
    monitor: &'a Monitor,
    program: CString,
    directory: CString,
    argv: Vec<*const u8>,
    envp: Vec<*const u8>,
    config: &'a GuestConfig,
    /// Written by the child where it fails, in the memory it shares.
    failure: Option<(&'static str, Errno)>,
}

/// Starts the workload; returns its process id once it runs.
///
/// # Errors
/// A step failed; the last is `execve PROGRAM`.
pub fn start(config: &GuestConfig, monitor: &Monitor) -> Result<i32, Failure> {
    let program = config.command.first().map_or("", String::as_str);
    let arguments =
        config.command.iter().map(|text| c_string(text)).collect::<Result<Vec<_>, _>>()?;
    let environment = config
        .env
        .iter()
        .map(|(name, value)| c_string(&[name.as_str(), "=", value].concat()))
        .collect::<Result<Vec<_>, _>>()?;
    let mut plan = Plan {
        monitor,
        program: c_string(program)?,
        directory: c_string(&config.working_dir)?,
        argv: null_ended(&arguments),
        envp: null_ended(&environment),
        config,
        failure: None,
    };
    // Left as it is, so that pages which are not needed are not touched.
    let mut stack = Vec::with_capacity(STACK_BYTES);
    // SAFETY: `run` never returns; it writes nothing but `plan.failure`, which is read below, after
    // the child has ended or become another program. Plan and stack live until then, since this
    // process stands still meanwhile.
    let spawned = unsafe { sys::spawn(stack.spare_capacity_mut(), run, &raw mut plan) };
    // SAFETY: `plan` is this function's own and the child is done with it. Volatile, because the
    // compiler cannot see that the child wrote to it.
    let failure = unsafe { (&raw const plan.failure).read_volatile() };
    match (spawned, failure) {
        (Ok(pid), None) => Ok(pid),
        (Err(errno), _) => Err(Failure { step: "clone".to_owned(), errno }),
        (Ok(_), Some(("execve", errno))) => {
            Err(Failure { step: ["execve ", program].concat(), errno })
        }
        (Ok(_), Some(("chdir", errno))) => {
            Err(Failure { step: ["chdir ", &config.working_dir].concat(), errno })
        }
        (Ok(_), Some((step, errno))) => Err(Failure { step: step.to_owned(), errno }),
    }
}

fn null_ended(strings: &[CString]) -> Vec<*const u8> {
    strings.iter().map(|text| text.as_ptr().cast()).chain([core::ptr::null()]).collect()
}

/// The child. Allocates nothing.
unsafe extern "C" fn run(plan: *mut Plan<'_>) -> ! {
    // SAFETY: `start` passes a plan that lives as long as this process shares its memory, and does
    // not touch it meanwhile.
    let plan = unsafe { &mut *plan };
    let failure = prepare(plan).err().unwrap_or_else(|| {
        // The last mark before the program: what follows are two system calls.
        plan.monitor.send(Kind::Exec, 0, &[]);
        match monitor::leave() {
            // SAFETY: both arrays were made by `null_ended` from strings that `start` holds.
            Ok(()) => ("execve", unsafe {
                sys::execute(&plan.program, plan.argv.as_ptr(), plan.envp.as_ptr())
            }),
            Err(errno) => ("ioperm", errno),
        }
    });
    plan.failure = Some(failure);
    sys::exit(127)
}

/// Everything before execve, in the order privileges allow.
fn prepare(plan: &Plan<'_>) -> Result<(), (&'static str, Errno)> {
    let named = |step: &'static str| move |errno| (step, errno);
    sys::new_session().map_err(named("setsid"))?;
    sys::block_signal(None).map_err(named("unblock signals"))?;
    // Standard output and error are the console PID 1 was started with.
    let null = sys::open(c"/dev/null", libc::O_RDWR).map_err(named("open /dev/null"))?;
    sys::dup_to(null, 0).map_err(named("set standard input"))?;
    sys::set_umask(0o022);
    sys::change_dir(&plan.directory).map_err(named("chdir"))?;
    for capability in 0..=LAST_CAPABILITY {
        if DEFAULT_CAPABILITIES >> capability & 1 == 0
            && sys::control_process(libc::PR_CAPBSET_DROP, capability, 0).is_err()
        {
            break; // the first one this kernel does not know
        }
    }
    // Some take the privileges that go next to be raised.
    for &(resource, (soft, hard)) in &plan.config.rlimits {
        sys::limit(resource, soft, hard).map_err(named("set resource limits"))?;
    }
    sys::set_groups(&plan.config.groups).map_err(named("set groups"))?;
    sys::set_group(plan.config.gid).map_err(named("set the group"))?;
    sys::set_user(plan.config.uid).map_err(named("set the user"))?;
    if plan.config.uid == 0 {
        // Changing to another user has dropped them all; root's go here.
        sys::set_capabilities(DEFAULT_CAPABILITIES).map_err(named("set capabilities"))?;
    }
    sys::control_process(libc::PR_SET_NO_NEW_PRIVS, 1, 0)
        .map(drop)
        .map_err(named("set no_new_privs"))
}
