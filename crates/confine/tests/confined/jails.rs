//! Jails, of root's processes and of an ordinary user's.

use compare_confine::{Confinement, Namespace, Part, jail::FIRST_UID};

use crate::{
    Case, is_root,
    seen::{Seen, namespace},
};

pub const CASES: &[Case] = &[
    ("root_gets_everything_in_namespaces_of_its_own", own),
    ("root_gets_everything_in_a_room", room),
    ("a_room_is_shared_and_users_are_not", shared),
    ("a_user_gets_what_a_user_namespace_gives", user),
    ("a_user_without_namespaces_is_told", refused),
    ("a_user_may_be_chosen", chosen),
    ("a_process_with_threads_is_refused", threads),
    ("what_was_not_kept_is_closed", closed),
    ("the_end_of_the_parent_is_the_end", parent),
];

/// An id no test file belongs to.
const SOMEBODY: u32 = 31_337;

/// What holds of every jail that could be had in full.
fn assert_confined(seen: &Seen, got: &Confinement) {
    for kind in ["mnt", "ipc", "uts"] {
        assert_ne!(seen.namespace(kind), namespace("self", kind), "{kind}");
    }
    assert!(got.empty_root && got.no_new_privileges);
    assert_eq!(got.capabilities, 0);
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"] {
        assert_eq!(seen.status(set), "0000000000000000", "{set}");
    }
    assert!(got.bounding_set_empty);
    assert_eq!(seen.status("NoNewPrivs"), "1");
    assert_eq!(seen.limit("Max core file size"), ("0".to_owned(), "0".to_owned()));
    assert_eq!(seen.limit("Max open files"), ("0".to_owned(), "0".to_owned()));
    assert_eq!(seen.limit("Max file size"), ("4096".to_owned(), "4096".to_owned()));
    // The tool reads the memory of its monitors, whoever they have become.
    assert!(seen.proc("smaps_rollup").contains("Pss:"));
    let mounts = seen.proc("mountinfo");
    let [mount] = mounts.lines().collect::<Vec<_>>()[..] else { panic!("{mounts}") };
    assert!(mount.contains(" / / ro,nosuid,nodev,noexec,"), "{mount}");
    assert!(mount.contains(" - ramfs "), "{mount}");
}

fn assert_nobody(seen: &Seen, got: &Confinement, id: u32) {
    assert_eq!((got.uid, got.gid, got.groups, got.dumpable), (id, id, 0, false));
    let four = format!("{id} {id} {id} {id}");
    assert_eq!((seen.status("Uid"), seen.status("Gid")), (four.clone(), four));
    assert_eq!(seen.status("Groups"), "");
    assert_eq!(got.lacks, []);
}

fn own() {
    if !is_root() {
        return;
    }
    let mut seen = Seen::start("own", None);
    let got = seen.confinement();
    assert_confined(&seen, &got);
    assert_nobody(&seen, &got, FIRST_UID + seen.pid());
    assert_eq!(got.namespaces, [Namespace::Mount, Namespace::Ipc, Namespace::Uts]);
    assert!(!got.shared);
    seen.end_well();
}

fn room() {
    if !is_root() {
        return;
    }
    let mut seen = Seen::start("room", None);
    let got = seen.confinement();
    assert_confined(&seen, &got);
    assert_nobody(&seen, &got, FIRST_UID + seen.pid());
    assert_ne!(seen.namespace("net"), namespace("self", "net"));
    assert!(got.shared && got.namespaces.contains(&Namespace::Net));
    seen.end_well();
}

fn shared() {
    if !is_root() {
        return;
    }
    let mut seen = Seen::start("two", None);
    assert_eq!(seen.line(), "same namespaces, different users, no signal");
    seen.end_well();
}

fn user() {
    if !is_root() {
        return;
    }
    let mut seen = Seen::start("own", Some(SOMEBODY));
    let got = seen.confinement();
    if let Some(lack) = got.lacks.iter().find(|lack| lack.part == Part::Namespaces) {
        println!("SKIP: users may make no namespaces here: error {}", lack.errno);
        return seen.end_well();
    }
    assert_confined(&seen, &got);
    assert_eq!((got.uid, got.gid), (SOMEBODY, SOMEBODY));
    assert!(seen.status("Uid").starts_with(&SOMEBODY.to_string()));
    assert_ne!(seen.namespace("user"), namespace("self", "user"));
    assert!(got.namespaces.contains(&Namespace::User));
    let lacks: Vec<Part> = got.lacks.iter().map(|lack| lack.part).collect();
    assert_eq!(lacks, [Part::Identity]);
    // Else the user's own tool could not read its memory.
    assert!(got.dumpable);
    seen.end_well();
}

fn refused() {
    if !is_root() {
        return;
    }
    let mut seen = Seen::start("refused", Some(SOMEBODY));
    let got = seen.confinement();
    let lacks: Vec<(Part, i32)> = got.lacks.iter().map(|lack| (lack.part, lack.errno)).collect();
    let eperm = libc::EPERM;
    let expected =
        [(Part::Identity, eperm), (Part::Namespaces, libc::ENOSPC), (Part::BoundingSet, eperm)];
    assert_eq!(lacks, expected);
    assert!(!got.empty_root && got.namespaces.is_empty() && !got.bounding_set_empty);
    assert!(got.no_new_privileges && got.capabilities == 0);
    assert_eq!(seen.limit("Max open files").1, "0");
    seen.end_well();
}

fn chosen() {
    if !is_root() {
        return;
    }
    let mut seen = Seen::start("chosen", None);
    let got = seen.confinement();
    assert_eq!((got.uid, got.gid), (12, 34));
    assert!(!got.bounding_set_empty && got.lacks.is_empty());
    assert_ne!(seen.status("CapBnd"), "0000000000000000");
    seen.end_well();
}

fn threads() {
    for user in [None, Some(SOMEBODY)].into_iter().take(1 + usize::from(is_root())) {
        let mut seen = Seen::start("threads", user);
        assert_eq!(seen.line(), "enter the jail: the process has more than one thread");
        seen.end_well();
    }
}

fn closed() {
    let mut seen = Seen::start("closed", None);
    assert_eq!(seen.line(), "open: 0 1 2 40 42");
    seen.end_well();
}

fn parent() {
    let mut seen = Seen::start("parent", None);
    assert_eq!(seen.line(), "dies of 9");
    seen.end_well();
}
