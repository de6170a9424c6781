//! What the tests of this crate share.

/// Says that a test cannot run here; where `COMPARE_REQUIRE` names this crate, that is a failure.
pub(crate) fn skip(reason: &str) {
    let required = std::env::var("COMPARE_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|name| name == "image"), "required, but cannot run: {reason}");
    println!("SKIP: {reason}");
}

/// Whether a program is installed; skips if not.
pub(crate) fn has(program: &str) -> bool {
    let missing: Vec<_> = crate::check_packages()
        .into_iter()
        .filter(|(need, found)| need.program == program && !found)
        .collect();
    if let Some((requirement, _)) = missing.first() {
        skip(&format!("{} is not installed ({})", requirement.program, requirement.package));
    }
    missing.is_empty()
}
