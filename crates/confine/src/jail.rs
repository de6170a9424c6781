//! What a process takes from itself, in one linear recipe, while it has one thread and once
//! everything it needs is open.

mod credentials;
mod descriptors;
mod limits;
mod namespaces;
mod room;
mod root;
mod sys;

pub use credentials::{FIRST_UID, Identity};
pub use descriptors::close_except;
pub use room::Room;
pub(crate) use sys::no_new_privileges;

use crate::{Confinement, Error, Lack, Part};

/// What a process may keep.
#[derive(Debug)]
pub struct Jail {
    /// Namespaces to enter; without, it makes its own.
    pub room: Option<Room>,
    /// Who it becomes if it is root.
    pub identity: Identity,
    /// Whether the bounding set of capabilities is emptied as well. It only bounds what execve(2)
    /// could give, which `no_new_privs` and every filter rule out already, and emptying it takes a
    /// system call for each capability.
    pub empty_bounding_set: bool,
    /// Descriptors from this number on can no longer be opened (RLIMIT_NOFILE). 0 for none at all.
    pub descriptors: u64,
    /// No file can be written beyond this many bytes (RLIMIT_FSIZE); pipes and devices can.
    pub file_bytes: u64,
}

impl Jail {
    /// Confines the calling process, which must have one thread, and says how far. The filters are
    /// the threads' own to install, and to add to what is returned.
    ///
    /// # Errors
    /// Anything fails but for want of privileges; what those would have given is among
    /// [`Confinement::lacks`].
    pub fn enter(self) -> Result<Confinement, Error> {
        let parent = sys::Parent::now()?;
        let root = sys::effective_uid() == 0;
        let mut got = Confinement { shared: self.room.is_some(), ..Confinement::default() };

        // Namespaces while there are privileges for it, or as the owner of a user namespace, which
        // the user the process becomes can make too.
        let mut entered = match self.room {
            Some(room) => Ok(room.enter()?),
            None if root => namespaces::unshare(false)?,
            None => Err(libc::EPERM),
        };
        // Emptying the bounding set takes a capability; so does becoming somebody else.
        let mut bounded = match self.empty_bounding_set && root {
            true => credentials::empty_bounding_set()?,
            false => Err(libc::EPERM),
        };
        got.lacks.extend(credentials::become_other(root, self.identity)?);
        (got.uid, got.gid) = credentials::ids();
        if entered.is_err() {
            entered = namespaces::unshare(true)?;
            if self.empty_bounding_set && entered.is_ok() {
                bounded = credentials::empty_bounding_set()?;
            }
        }
        let lack = |part, errno| Lack { part, errno };
        match entered {
            Ok(kinds) => (got.namespaces, got.empty_root) = (kinds, true),
            Err(errno) => got.lacks.push(lack(Part::Namespaces, errno)),
        }
        match bounded {
            Ok(()) => got.bounding_set_empty = true,
            Err(errno) if self.empty_bounding_set => got.lacks.push(lack(Part::BoundingSet, errno)),
            Err(_) => {}
        }
        // Not before: making a root takes descriptors.
        limits::set(self.descriptors, self.file_bytes)?;
        credentials::drop_capabilities()?;
        no_new_privileges()?;
        // A user's own tool has no privilege to look into what cannot be dumped, and has to.
        if root {
            sys::set_dumpable(false)?;
        }
        // Becoming somebody else has undone it.
        parent.die_with_it()?;

        credentials::describe(&mut got)?;
        Ok(got)
    }
}
