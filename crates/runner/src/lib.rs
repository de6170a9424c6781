//! Carries out a plan: snapshots to restore from, warm-ups, interleaved trials, measurement, and the proof after each trial
//! that nothing was left behind. Knows backends by their contract alone and tells what happens as
//! [`RunEvent`](compare_spec::RunEvent)s.

mod cancel;
mod footprint;
mod run;
mod scratch;
mod template;
mod trial;

pub use cancel::Cancel;
pub use footprint::Footprint;
pub use run::{RunError, Setting, run};
pub use scratch::Scratch;
