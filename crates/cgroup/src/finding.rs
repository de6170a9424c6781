//! One line of `doctor`: something this program needs from its host, and whether it is there.

/// What was looked at, what was seen, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is needed, such as `cgroup memory` or `overlayfs`.
    pub name: &'static str,
    /// Whether it is usable.
    pub ok: bool,
    /// What was seen.
    pub evidence: String,
    /// What would help, where it is not usable.
    pub remedy: Option<String>,
}
