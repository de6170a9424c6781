//! What a report says, section by section, in the order a reader asks: where was this, how long
//! does it take, what does it cost, what went wrong, what follows.

use compare_spec::Record;

use crate::{document::Block, view::View};

mod compared;
mod head;
mod memory;
mod startup;
mod trouble;
mod verdict;

/// The whole report; its first block is the host.
pub(crate) fn report(record: &Record) -> Vec<Block> {
    let view = View::new(record);
    let mut blocks = Vec::from(head::facts(&view));
    blocks.extend(head::warnings(&view));
    if view.sides.iter().any(|side| view.counts(side).0 > 0) {
        blocks.extend(startup::section(&view));
        blocks.extend(memory::section(&view));
    }
    blocks.extend(trouble::section(&view));
    blocks.extend(verdict::section(&view));
    blocks
}
