//! The monitor's confinement (crate `confine`): what it takes from itself once its machine is built
//! and before the guest's first instruction, and how it tells.

use compare_confine::{
    FilterSize, Identity, Jail, Namespace, Part, Room, monitor::Monitor, seccomp::Filter,
};
use compare_spec::Confinement;

use crate::error::Error;

/// Longest file the monitor may still write, where it saves no larger machine: the longest scratch disk,
/// and what its console may be redirected to if it is run by hand.
const LONGEST_FILE: u64 = 1 << 40;

/// What to confine, and how far.
#[derive(Debug)]
pub struct Plan {
    /// Namespaces made beforehand, if any.
    pub room: Option<Room>,
    /// Bytes of guest RAM, if the machine may be saved.
    pub saves: Option<u64>,
    /// Whether a device takes connections, and how many descriptors that may take.
    pub listens: Option<u64>,
}

/// A confined process, and what its threads are yet to do.
#[derive(Debug)]
pub struct Confined {
    monitor: Monitor,
    summary: compare_confine::Confinement,
}

impl Plan {
    /// Confines the process, which has one thread yet.
    ///
    /// # Errors
    /// Something fails that only lacking privileges may.
    pub fn enter(self) -> Result<Confined, Error> {
        let monitor = Monitor {
            process: std::process::id(),
            saves: self.saves.is_some(),
            listens: self.listens.is_some(),
        };
        let jail = Jail {
            room: self.room,
            identity: Identity::OfProcess,
            empty_bounding_set: false,
            descriptors: self.listens.unwrap_or(0),
            file_bytes: self.saves.unwrap_or(0).max(LONGEST_FILE),
        };
        Ok(Confined { monitor, summary: jail.enter().map_err(Error::confine)? })
    }
}

impl Confined {
    /// Makes the filters: for threads that run a CPU, and for the one that serves the devices.
    ///
    /// # Errors
    /// None that the monitor's own lists could bring about.
    pub fn filters(&mut self) -> Result<Filters, Error> {
        let vcpu = self.monitor.vcpu().compile().map_err(Error::confine)?;
        let devices = self.monitor.devices().compile().map_err(Error::confine)?;
        self.summary.filters =
            vec![FilterSize::of("vcpu", &vcpu), FilterSize::of("devices", &devices)];
        Ok(Filters { vcpu, devices })
    }

    /// The summary for [`compare_wire::Kind::Confined`].
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.summary).expect("plain data always encodes")
    }
}

/// The filters, for each thread to install itself.
#[derive(Debug)]
pub struct Filters {
    /// For threads that run a CPU.
    pub vcpu: Filter,
    /// For the thread that serves the devices.
    pub devices: Filter,
}

/// What a monitor told of itself.
pub fn told(payload: &[u8]) -> Option<Confinement> {
    let told: compare_confine::Confinement = postcard::from_bytes(payload).ok()?;
    Some(Confinement {
        namespaces: told.namespaces.iter().map(|&kind| namespace(kind).to_owned()).collect(),
        empty_root: told.empty_root,
        uid: told.uid,
        gid: told.gid,
        capabilities: told.capabilities,
        no_new_privileges: told.no_new_privileges,
        filters: told
            .filters
            .into_iter()
            .map(|filter| compare_spec::FilterSize {
                thread: filter.thread,
                system_calls: filter.system_calls,
                instructions: filter.instructions,
            })
            .collect(),
        lacks: told
            .lacks
            .iter()
            .map(|lack| {
                let why = std::io::Error::from_raw_os_error(lack.errno);
                format!("{}: {why}", part(lack.part))
            })
            .collect(),
    })
}

fn namespace(kind: Namespace) -> &'static str {
    match kind {
        Namespace::Ipc => "ipc",
        Namespace::Mount => "mount",
        Namespace::Net => "net",
        Namespace::User => "user",
        Namespace::Uts => "uts",
    }
}

fn part(part: Part) -> &'static str {
    match part {
        Part::Namespaces => "namespaces and an empty root",
        Part::Identity => "a user of its own",
        Part::Groups => "no supplementary groups",
        Part::BoundingSet => "an empty bounding set",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_summary_fits_a_frame_and_is_told() {
        let filter = |thread: &str| FilterSize {
            thread: thread.to_owned(),
            instructions: u32::MAX,
            system_calls: u32::MAX,
        };
        let summary = compare_confine::Confinement {
            namespaces: vec![
                Namespace::Ipc,
                Namespace::Mount,
                Namespace::Net,
                Namespace::User,
                Namespace::Uts,
            ],
            uid: u32::MAX,
            gid: u32::MAX,
            groups: u32::MAX,
            capabilities: u64::MAX,
            filters: vec![filter("vcpu"), filter("devices")],
            lacks: [Part::Namespaces, Part::Identity, Part::Groups, Part::BoundingSet]
                .map(|part| compare_confine::Lack { part, errno: libc::EPERM })
                .to_vec(),
            ..Default::default()
        };
        let bytes = postcard::to_stdvec(&summary).unwrap();
        assert!(bytes.len() <= compare_wire::MAX_PAYLOAD, "{} bytes", bytes.len());
        let told = told(&bytes).unwrap();
        assert_eq!(told.namespaces, ["ipc", "mount", "net", "user", "uts"]);
        assert_eq!(told.filters[1].thread, "devices");
        assert!(told.lacks[1].starts_with("a user of its own: Operation not permitted"));
        assert!(super::told(&[0xff; 9]).is_none());
    }
}
