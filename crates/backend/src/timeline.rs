//! One instance's phases on one clock.

use compare_spec::{EventsNs, Phase};

/// CLOCK_MONOTONIC in nanoseconds: the one clock of every figure (clock_gettime(2)).
pub fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .expect("CLOCK_MONOTONIC exists on every Linux");
    now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64
}

/// The phases reached so far.
#[derive(Debug, Clone)]
pub struct Timeline {
    t0: u64,
    events: EventsNs,
}

impl Timeline {
    /// Starts the clock: call it before anything is done for the instance.
    pub fn start() -> Self {
        Self { t0: monotonic_ns(), events: EventsNs::default() }
    }

    /// A phase was reached at `ns` of [`monotonic_ns`]. The first time stays; a time before `t0`
    /// counts as `t0`.
    pub fn reach_at(&mut self, phase: Phase, ns: u64) {
        self.events.set(phase, ns.saturating_sub(self.t0));
    }

    /// A phase is reached now.
    pub fn reach(&mut self, phase: Phase) {
        self.reach_at(phase, monotonic_ns());
    }

    /// The stop is asked for now.
    pub fn stop_asked(&mut self) {
        self.events.stop.get_or_insert(monotonic_ns() - self.t0);
    }

    /// Whether a phase was reached.
    pub fn has(&self, phase: Phase) -> bool {
        self.events.get(phase).is_some()
    }

    /// The time of the request, nanoseconds of [`monotonic_ns`].
    pub fn t0(&self) -> u64 {
        self.t0
    }

    /// Everything so far, relative to `t0`.
    pub fn events(&self) -> EventsNs {
        self.events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_stays() {
        let mut timeline = Timeline::start();
        timeline.reach_at(Phase::Init, timeline.t0() + 5);
        timeline.reach_at(Phase::Init, timeline.t0() + 9);
        timeline.reach_at(Phase::Created, timeline.t0().saturating_sub(1));
        assert_eq!(timeline.events().init, Some(5));
        assert_eq!(timeline.events().created, Some(0));
        assert!(!timeline.has(Phase::Exec));
    }
}
