//! The workloads that come with the tool, and how a workload is found by name or path.

use std::path::Path;

use compare_spec::Workload;

use crate::error::{Error, Result};

static BUILT_IN: [(&str, &str); 2] = [
    ("hello", include_str!("../workloads/hello.toml")),
    ("nginx", include_str!("../workloads/nginx.toml")),
];

/// Names and texts of the built-in workloads.
pub fn builtin() -> &'static [(&'static str, &'static str)] {
    &BUILT_IN
}

/// Finds a workload: a name without `/` that does not end in `.toml` is a built-in one, anything
/// else the path of a file.
///
/// # Errors
/// There is no such workload, or its file cannot be used.
pub fn load(name_or_path: &str) -> Result<Workload> {
    if name_or_path.contains('/') || name_or_path.ends_with(".toml") {
        return Ok(Workload::read(Path::new(name_or_path))?);
    }
    if let Some((name, text)) = BUILT_IN.iter().find(|(name, _)| *name == name_or_path) {
        return Ok(Workload::parse(name, text)?);
    }
    let asked = name_or_path.to_lowercase();
    let close = BUILT_IN.iter().map(|(name, _)| (distance(&asked, name), *name)).min();
    let hint = close
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, name)| format!(" (did you mean `{name}`?)"));
    Err(Error::UnknownWorkload {
        name: name_or_path.to_owned(),
        hint: hint.unwrap_or_default(),
        known: BUILT_IN.map(|(name, _)| name).join(" and "),
    })
}

/// How many letters must be inserted, removed or replaced to turn one word into the other
/// (Levenshtein 1966).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for column in 0..to.len() {
            let replaced = diagonal + usize::from(to[column] != letter);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_workloads_are_sound() {
        for (name, _) in builtin() {
            let workload = load(name).unwrap();
            assert_eq!(workload.name, *name);
            assert!(!workload.description.is_empty());
        }
    }

    #[test]
    fn unknown_names_are_told_with_what_there_is() {
        let text = load("ngnix").unwrap_err().to_string();
        assert_eq!(
            text,
            "no workload is called `ngnix` (did you mean `nginx`?): there are hello and nginx; your own is given by its path, such as ./ngnix.toml"
        );
        assert!(!load("postgres").unwrap_err().to_string().contains("did you mean"));
        assert!(matches!(load("./mine.toml").unwrap_err(), Error::Workload(_)));
        assert!(load("mine.toml").unwrap_err().to_string().starts_with("mine.toml: cannot read"));
    }

    #[test]
    fn distances() {
        assert_eq!(
            (distance("nginx", "nginx"), distance("", "abc"), distance("kitten", "sitting")),
            (0, 3, 3)
        );
    }
}
