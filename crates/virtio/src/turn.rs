//! One turn of serving a queue: as many requests as the queue has entries, at the most. A driver that
//! adds requests while the device serves them, or has the device itself add them, would otherwise hold
//! the thread that serves every device for ever. Whoever serves is told that there is more, lets the
//! other devices have their turn, and comes back.
//!
//! At the end of a turn the driver is asked to notify again, and the queue looked at once more, since
//! it may have added something in between.

use std::sync::atomic::Ordering;

use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};

use crate::{Memory, Notice, QueueError, Served};

/// What is left of a turn.
#[derive(Debug)]
pub struct Turn {
    requests: u16,
}

impl Turn {
    /// A turn of this queue.
    pub fn of(queue: &Queue) -> Self {
        Self { requests: queue.size() }
    }

    /// The next request of the driver, unless the turn is over.
    ///
    /// # Errors
    /// The rings are broken.
    pub fn next<'m>(
        &mut self,
        queue: &mut Queue,
        memory: &'m Memory,
    ) -> Result<Option<DescriptorChain<&'m Memory>>, QueueError> {
        if self.is_over() {
            return Ok(None);
        }
        let chain = queue.iter(memory)?.next();
        self.requests -= u16::from(chain.is_some());
        Ok(chain)
    }

    /// Whether the others are to be served first.
    pub fn is_over(&self) -> bool {
        self.requests == 0
    }
}

/// Serves a turn of a queue by `answer`, which returns how many bytes it has written to a request.
///
/// # Errors
/// The rings are broken, or `answer` refuses a request.
pub fn serve_each(
    queue: &mut Queue,
    memory: &Memory,
    mut answer: impl FnMut(DescriptorChain<&Memory>) -> Result<u32, QueueError>,
) -> Result<Served, QueueError> {
    let mut turn = Turn::of(queue);
    queue.disable_notification(memory)?;
    loop {
        while let Some(chain) = turn.next(queue, memory)? {
            let head = chain.head_index();
            let written = answer(chain)?;
            queue.add_used(memory, head, written)?;
        }
        let more = rearm(queue, memory)?;
        if !more || turn.is_over() {
            return Ok(Served { notice: Notice::from(queue.needs_notification(memory)?), more });
        }
    }
}

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
