//! Waits until a freshly started instance has stopped working, so that memory is read at rest.

use std::{
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};

use compare_backend::Instance;
use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};

/// The window in which an instance must be nearly idle.
const WINDOW: Duration = Duration::from_millis(20);
/// The most CPU time it may use in a window and still count as at rest: 5 %.
const IDLE: Duration = Duration::from_millis(1);
/// A workload that never rests is measured as it is.
const LONGEST: Duration = Duration::from_secs(2);

/// Follows the instance until its cgroup used less than 5 % of a CPU for 20 ms, at most for 2 s.
/// Tells whether it came to rest; `None` where CPU time is not accounted.
pub fn settle(instance: &mut dyn Instance, cancel: BorrowedFd<'_>) -> Option<bool> {
    let begin = Instant::now();
    let mut used = instance.leaf().cpu_usage_ns()?;
    while begin.elapsed() < LONGEST {
        let window = Instant::now();
        while let Some(left) = WINDOW.checked_sub(window.elapsed()).filter(|left| !left.is_zero()) {
            let mut fds = vec![PollFd::new(cancel, PollFlags::POLLIN)];
            fds.extend(instance.fds().into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(left)), None);
            let cancelled = fds[0].revents().is_some_and(|events| !events.is_empty());
            drop(fds);
            if cancelled || instance.pump().is_err() || instance.exit().is_some() {
                return Some(false);
            }
        }
        let now = instance.leaf().cpu_usage_ns()?;
        if now.saturating_sub(used) < IDLE.as_nanos() as u64 {
            return Some(true);
        }
        used = now;
    }
    Some(false)
}
