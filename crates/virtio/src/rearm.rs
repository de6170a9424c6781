//! The end of a round of serving: the driver is asked to notify again, and the queue looked at once
//! more, since it may have added something in between.

use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueT};

use crate::{Memory, QueueError};

/// Asks the driver to notify again; says whether the queue holds something already, in which case it is
/// asked not to.
///
/// # Errors
/// The rings are broken, or contradict themselves: where the used ring lies over the available ring,
/// what is written to the one may look like something new in the other, for ever.
pub fn rearm(queue: &mut Queue, memory: &Memory) -> Result<bool, QueueError> {
    if !queue.enable_notification(memory)? {
        return Ok(false);
    }
    queue.disable_notification(memory)?;
    if queue.avail_idx(memory, Ordering::Acquire)?.0 == queue.next_avail() {
        return Err(QueueError::Request("rings that lie over each other"));
    }
    Ok(true)
}
