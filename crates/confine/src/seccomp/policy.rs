//! The list a filter is made from.

use super::{Condition, Filter, compile::compile};
use crate::Error;

/// What happens to a system call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It is made.
    Allow,
    /// It is made and told in the kernel's log.
    Log,
    /// It fails with this error number.
    Errno(u16),
    /// It waits for what a [`super::Listener`] says of it; without one it fails with `ENOSYS`.
    Notify,
    /// The thread gets SIGSYS instead, which a handler can take.
    Trap,
    /// The process dies of SIGSYS, whatever it does about that signal. Who waits for it learns the
    /// signal; which call it was is told in the kernel's audit log only (`type=1326`).
    KillProcess,
}

impl Action {
    /// `SECCOMP_RET_*` with its data.
    pub(super) fn value(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Log => libc::SECCOMP_RET_LOG,
            Self::Errno(number) => libc::SECCOMP_RET_ERRNO | u32::from(number),
            Self::Notify => libc::SECCOMP_RET_USER_NOTIF,
            Self::Trap => libc::SECCOMP_RET_TRAP,
            Self::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

/// A system call on the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub(super) number: u32,
    pub(super) action: Action,
    /// Any of these will do; of each, all conditions must hold. None at all: whatever the arguments.
    pub(super) alternatives: Vec<Vec<Condition>>,
    /// What happens where none will do; the list's default if not given.
    pub(super) otherwise: Option<Action>,
}

impl Call {
    /// The call with this number (`SYS_*`), allowed.
    pub fn new(number: libc::c_long) -> Self {
        // Numbers are the kernel's unsigned 32 bits; what does not fit is no call and never made.
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        Self { number, action: Action::Allow, alternatives: Vec::new(), otherwise: None }
    }

    /// Treats it differently.
    #[must_use]
    pub fn with(mut self, action: Action) -> Self {
        self.action = action;
        self
    }

    /// Only where all of these hold. Given again: or all of those.
    #[must_use]
    pub fn when(mut self, conditions: impl IntoIterator<Item = Condition>) -> Self {
        self.alternatives.push(conditions.into_iter().collect());
        self
    }

    /// What happens where no conditions hold, instead of the list's default.
    #[must_use]
    pub fn otherwise(mut self, action: Action) -> Self {
        self.otherwise = Some(action);
        self
    }
}

/// A list of system calls, and what happens to all others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub(super) default: Action,
    pub(super) calls: Vec<Call>,
}

impl Policy {
    /// An empty list: `default` happens to every call.
    pub fn new(default: Action) -> Self {
        Self { default, calls: Vec::new() }
    }

    /// Allows these (`SYS_*`), whatever their arguments.
    #[must_use]
    pub fn allow(mut self, numbers: &[libc::c_long]) -> Self {
        self.calls.extend(numbers.iter().map(|&number| Call::new(number)));
        self
    }

    /// Puts one more on the list.
    #[must_use]
    pub fn call(mut self, call: Call) -> Self {
        self.calls.push(call);
        self
    }

    /// What happens to a call with this number and these arguments, told from the list itself. The
    /// filter says the same.
    pub fn decide(&self, number: u32, arguments: &[u64; 6]) -> Action {
        let holds = |conditions: &Vec<Condition>| {
            conditions.iter().all(|condition| condition.holds(arguments))
        };
        match self.calls.iter().find(|call| call.number == number) {
            Some(call) if call.alternatives.is_empty() || call.alternatives.iter().any(holds) => {
                call.action
            }
            Some(call) => call.otherwise.unwrap_or(self.default),
            None => self.default,
        }
    }

    /// Makes the filter.
    ///
    /// # Errors
    /// A call is there twice, a condition could never hold, or it gets too long.
    pub fn compile(&self) -> Result<Filter, Error> {
        compile(self)
    }
}
