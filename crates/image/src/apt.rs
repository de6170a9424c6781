//! The distribution's packages, asked for through apt: what there is, and the files themselves,
//! whose digests apt checks against the signed index. Nothing is installed and no privilege is
//! needed.

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use compare_spec::Digest;

use crate::{
    cache::{Cache, Kind, Recipe},
    error::{At, Error, Result},
    program::{command, run, run_watched},
    progress::Progress,
};

/// The fields of a package's control data that matter here (deb-control(5)).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Control {
    /// Name.
    pub(crate) name: String,
    /// Version.
    pub(crate) version: String,
    /// Architecture.
    pub(crate) architecture: String,
    /// Name of the source package it was built from.
    pub(crate) source: String,
    /// Section of the archive: `libs` for shared libraries.
    pub(crate) section: String,
    /// Pre-Depends and Depends: for each, the names of its alternatives.
    pub(crate) depends: Vec<Vec<String>>,
    /// Length of the package file, bytes.
    pub(crate) size: u64,
    /// Digest of the package file, as the index has it.
    pub(crate) checksum: String,
}

/// What apt knows, remembered: each question to it takes half a second.
#[derive(Debug, Default)]
pub(crate) struct Apt {
    known: HashMap<String, Option<Control>>,
}

impl Apt {
    /// Looks packages up: the version that would be installed. Names that are unknown or only
    /// virtual are left out.
    pub(crate) fn look_up(&mut self, names: &[String]) -> Result<()> {
        let new: Vec<&String> =
            names.iter().filter(|name| !self.known.contains_key(*name)).collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut show = command("apt-cache");
        show.args(["--no-all-versions", "show", "--"]).args(&new);
        let output = match run(&mut show) {
            Err(Error::Program { stderr, .. }) if stderr.contains("No packages found") => {
                Vec::new()
            }
            output => output?,
        };
        self.known.extend(new.iter().map(|name| ((*name).clone(), None)));
        for control in parse(&String::from_utf8_lossy(&output)) {
            self.known.insert(control.name.clone(), Some(control));
        }
        Ok(())
    }

    /// A package that was looked up and found.
    pub(crate) fn get(&self, name: &str) -> Option<&Control> {
        self.known.get(name)?.as_ref()
    }

    /// A package that must exist.
    pub(crate) fn need(&mut self, name: &str) -> Result<Control> {
        self.look_up(&[name.to_owned()])?;
        self.get(name).cloned().ok_or_else(|| Error::Package {
            package: name.to_owned(),
            problem: format!(
                "apt knows no such package: check the name, or refresh its lists with `{}`",
                update()
            ),
            source: None,
        })
    }

    /// The packages one depends on: of each set of alternatives the first that exists.
    pub(crate) fn depends(&mut self, control: &Control) -> Result<Vec<Control>> {
        let names: Vec<String> = control.depends.iter().flatten().cloned().collect();
        self.look_up(&names)?;
        let first = |alternatives: &Vec<String>| {
            alternatives.iter().find_map(|name| self.get(name)).cloned()
        };
        let found = control.depends.iter().filter_map(first);
        let mut seen = HashSet::new();
        Ok(found.filter(|control| seen.insert(control.name.clone())).collect())
    }
}

fn update() -> &'static str {
    if nix::unistd::geteuid().is_root() { "apt-get update" } else { "sudo apt-get update" }
}

/// Downloads packages into the cache and returns their files, in the order asked for.
pub(crate) fn download(
    cache: &Cache,
    packages: &[Control],
    progress: &dyn Progress,
) -> Result<Vec<PathBuf>> {
    let mut lines: Vec<String> = packages
        .iter()
        .map(|control| {
            format!(
                "{} {} {} {} {}\n",
                control.name, control.version, control.architecture, control.size, control.checksum
            )
        })
        .collect();
    lines.sort();
    let key = Digest::of(lines.concat().as_bytes());
    let names: Vec<&str> = packages.iter().map(|control| control.name.as_str()).collect();
    let names = names.join(" ");
    let total: u64 = packages.iter().map(|control| control.size).sum();

    let build = |staging: &Path| {
        let mut get = command("apt-get");
        // As root apt drops its privileges to a user that cannot write here.
        get.args(["-qq", "download", "-o", "APT::Sandbox::User=root"]).current_dir(staging);
        get.args(packages.iter().map(|control| format!("{}={}", control.name, control.version)));
        let tick = || {
            progress.detail(&format!(
                "downloading {names}: {} of {}",
                megabytes(bytes_in(staging)),
                megabytes(total)
            ))
        };
        run_watched(&mut get, tick).map(drop).map_err(|error| match error {
            Error::Program { .. } if !error.is_disk_full() => Error::Package {
                package: names.clone(),
                problem: format!(
                    "cannot be downloaded: check the network, or refresh apt's lists with `{}`",
                    update()
                ),
                source: Some(Box::new(error)),
            },
            other => other,
        })
    };
    let open = |entry: &Path| packages.iter().map(|control| find(entry, control)).collect();
    let what = format!("packages {names}");
    Ok(cache
        .entry(
            Recipe { kind: Kind::Packages, key: &key, what: &what, refresh: false },
            progress,
            build,
            open,
        )?
        .value)
}

/// Unpacks a package below `directory`, which must not exist yet. No script of it is run.
pub(crate) fn unpack(package: &Path, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).at("create", directory)?;
    run(command("dpkg-deb").arg("-x").arg(package).arg(directory)).map(drop)
}

/// apt names files `package_version_architecture.deb`, with `%3a` for the colon of an epoch.
fn find(entry: &Path, control: &Control) -> Result<PathBuf> {
    let name = format!(
        "{}_{}_{}.deb",
        control.name,
        control.version.replace(':', "%3a"),
        control.architecture
    );
    let path = entry.join(name);
    let length = fs::metadata(&path).at("read", &path)?.len();
    if length != control.size {
        let problem = format!("{length} bytes where {} were expected", control.size);
        return Err(Error::Corrupt { path, problem, entry: entry.to_owned() });
    }
    Ok(path)
}

/// Bytes of the files in a directory.
fn bytes_in(directory: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(directory) else { return 0 };
    entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).sum()
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Reads the paragraphs that `apt-cache show` prints.
fn parse(text: &str) -> Vec<Control> {
    text.split("\n\n").filter_map(paragraph).collect()
}

fn paragraph(text: &str) -> Option<Control> {
    // A line that begins with a blank goes on with the field before; none of those matter here.
    let fields: HashMap<&str, &str> = text
        .lines()
        .filter(|line| !line.starts_with([' ', '\t']))
        .filter_map(|line| line.split_once(": "))
        .collect();
    let field = |name: &str| fields.get(name).map(|value| value.trim().to_owned());
    let name = field("Package")?;
    let depends = ["Pre-Depends", "Depends"]
        .into_iter()
        .filter_map(field)
        .flat_map(|value| relations(&value))
        .collect();
    let source =
        field("Source").and_then(|source| Some(source.split_whitespace().next()?.to_owned()));
    Some(Control {
        version: field("Version")?,
        architecture: field("Architecture")?,
        source: source.unwrap_or_else(|| name.clone()),
        section: field("Section").unwrap_or_default(),
        size: field("Size")?.parse().ok()?,
        checksum: field("SHA256").or_else(|| field("SHA512")).or_else(|| field("MD5sum"))?,
        depends,
        name,
    })
}

/// `a (>= 1) | b:any, c` gives `[[a, b], [c]]` (deb-control(5), "Depends").
fn relations(value: &str) -> Vec<Vec<String>> {
    let name = |text: &str| {
        let end =
            text.find(|c: char| c.is_whitespace() || "(:[<".contains(c)).unwrap_or(text.len());
        text[..end].to_owned()
    };
    value.split(',').map(|group| group.split('|').map(|text| name(text.trim())).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_data_is_read() {
        let text = "Package: nginx\nVersion: 1:1.22-9\nArchitecture: amd64\nSource: nginx-src (1.2)\nPre-Depends: init-system-helpers\n\
            Depends: libc6 (>= 2.34), a:any | b (<< 2) [amd64], c\nSection: httpd\nSize: 5\nSHA256: ab\nDescription: a\n b\n .\n\n\
            Package: broken\n\nPackage: x\nVersion: 1\nArchitecture: all\nSize: 1\nMD5sum: cd\n";
        let all = parse(text);
        assert_eq!(all.len(), 2);
        let nginx = &all[0];
        assert_eq!(
            (nginx.source.as_str(), nginx.section.as_str(), nginx.size),
            ("nginx-src", "httpd", 5)
        );
        assert_eq!(
            nginx.depends,
            [vec!["init-system-helpers"], vec!["libc6"], vec!["a", "b"], vec!["c"]]
        );
        assert_eq!((all[1].source.as_str(), all[1].checksum.as_str()), ("x", "cd"));
    }

    #[test]
    fn unknown_packages_are_told() {
        if !crate::testing::has("apt-get") {
            return;
        }
        let error = Apt::default().need("no-such-package").unwrap_err().to_string();
        assert!(
            error.starts_with("package no-such-package: apt knows no such package")
                && error.contains("apt-get update"),
            "{error}"
        );
    }
}
