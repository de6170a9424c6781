//! How the making of artefacts is told to whoever waits for it.

use std::time::Duration;

/// Receives what happens. A step that finds its result in the cache is not announced, only `done`.
pub trait Progress {
    /// A step begins. Steps do not nest.
    fn step(&self, name: &str);

    /// What the current step is doing; the next one replaces it.
    fn detail(&self, text: &str);

    /// A step ended well. `cached` says that nothing had to be done.
    fn done(&self, name: &str, elapsed: Duration, cached: bool);

    /// Something that should stay visible: a wait for another process, something an interrupted
    /// run left behind, an artefact that was damaged and is made again. May come at any time.
    fn note(&self, text: &str);
}

/// Tells nobody.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn step(&self, _: &str) {}
    fn detail(&self, _: &str) {}
    fn done(&self, _: &str, _: Duration, _: bool) {}
    fn note(&self, _: &str) {}
}
