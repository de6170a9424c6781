use std::{
    sync::{
        Barrier,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use super::*;
use crate::progress::Silent;

#[derive(Default)]
struct Notes(std::cell::RefCell<Vec<String>>);

impl Progress for Notes {
    fn step(&self, _: &str) {}
    fn detail(&self, _: &str) {}
    fn done(&self, _: &str, _: Duration, _: bool) {}
    fn note(&self, text: &str) {
        self.0.borrow_mut().push(text.to_owned());
    }
}

fn recipe<'a>(key: &'a Digest, refresh: bool) -> Recipe<'a> {
    Recipe { kind: Kind::Image, key, what: "image", refresh }
}

fn read(entry: &Path) -> Result<String> {
    let path = entry.join("file");
    fs::read_to_string(&path).at("read", &path)
}

fn write(staging: &Path, text: &str) -> Result<()> {
    let path = staging.join("file");
    fs::write(&path, text).at("write", &path)
}

fn left(cache: &Cache) -> usize {
    fs::read_dir(cache.root().join("tmp")).unwrap().count()
}

#[test]
fn an_entry_is_made_once() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), &Silent).unwrap();
    let key = Digest::of(b"a");
    let first =
        cache.entry(recipe(&key, false), &Silent, |staging| write(staging, "1"), read).unwrap();
    assert_eq!(first, Entry { value: "1".to_owned(), cached: false });
    let again = cache.entry(recipe(&key, false), &Silent, |_| panic!("it is there"), read).unwrap();
    assert_eq!(again, Entry { value: "1".to_owned(), cached: true });
    let fresh =
        cache.entry(recipe(&key, true), &Silent, |staging| write(staging, "2"), read).unwrap();
    assert_eq!(fresh, Entry { value: "2".to_owned(), cached: false });
    assert_eq!(left(&cache), 0);
    let locks: Vec<_> = fs::read_dir(folder.path().join("lock"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(locks, ["staging"], "locks on keys are gone");
}

#[test]
fn two_makers_of_one_key_make_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let key = Digest::of(b"a");
    let (built, barrier) = (AtomicUsize::new(0), Barrier::new(4));
    let notes: Vec<String> = thread::scope(|scope| {
        let maker = || {
            let notes = Notes::default();
            let cache = Cache::open(folder.path(), &notes).unwrap();
            barrier.wait();
            let build = |staging: &Path| {
                built.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(200));
                write(staging, "made")
            };
            assert_eq!(
                cache.entry(recipe(&key, false), &notes, build, read).unwrap().value,
                "made"
            );
            notes.0.into_inner()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(maker)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(built.into_inner(), 1);
    assert_eq!(notes, vec!["waiting for another compare that builds the image"; 3]);
}

#[test]
fn whoever_waits_for_a_maker_that_fails_makes_it() {
    let folder = tempfile::tempdir().unwrap();
    let key = Digest::of(b"a");
    let (begun, wait) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let cache = Cache::open(folder.path(), &Silent).unwrap();
            let build = |staging: &Path| {
                write(staging, "half")?;
                begun.send(()).unwrap();
                thread::sleep(Duration::from_millis(100));
                Err(Error::NoCacheHome)
            };
            cache.entry(recipe(&key, false), &Silent, build, read).unwrap_err();
        });
        wait.recv().unwrap();
        let cache = Cache::open(folder.path(), &Silent).unwrap();
        assert_eq!(left(&cache), 1, "the other's work was left alone");
        let entry = cache
            .entry(recipe(&key, false), &Silent, |staging| write(staging, "whole"), read)
            .unwrap();
        assert_eq!(entry, Entry { value: "whole".to_owned(), cached: false });
        assert_eq!(left(&cache), 0);
    });
}

#[test]
fn what_a_dead_maker_left_is_removed_and_told() {
    let folder = tempfile::tempdir().unwrap();
    Cache::open(folder.path(), &Silent).unwrap();
    let dead = folder.path().join("tmp/kernel-99999-0");
    fs::create_dir_all(dead.join("sub")).unwrap();
    fs::write(dead.join("sub/file"), "x").unwrap();
    fs::set_permissions(dead.join("sub"), std::os::unix::fs::PermissionsExt::from_mode(0o500))
        .unwrap();
    let notes = Notes::default();
    let cache = Cache::open(folder.path(), &notes).unwrap();
    assert_eq!(left(&cache), 0);
    assert_eq!(
        notes.0.into_inner(),
        ["removed what an interrupted compare left in the cache: kernel-99999-0"]
    );
}

/// The maker is a real process, killed for real.
#[test]
fn a_killed_maker_leaves_nothing_that_counts() {
    let folder = tempfile::tempdir().unwrap();
    let mut maker = std::process::Command::new(env::current_exe().unwrap())
        .args(["--exact", "cache::tests::maker_process", "--ignored", "--nocapture"])
        .env("COMPARE_TEST_CACHE", folder.path())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !folder.path().join("begun").exists() {
        thread::sleep(Duration::from_millis(5));
    }
    let cache = Cache::open(folder.path(), &Silent).unwrap();
    assert_eq!(left(&cache), 1, "the maker lives");
    maker.kill().unwrap();
    maker.wait().unwrap();
    let notes = Notes::default();
    let cache = Cache::open(folder.path(), &notes).unwrap();
    assert_eq!((left(&cache), notes.0.borrow().len()), (0, 1));
    let entry = cache
        .entry(recipe(&Digest::of(b"a"), false), &notes, |staging| write(staging, "whole"), read)
        .unwrap();
    assert_eq!(entry, Entry { value: "whole".to_owned(), cached: false });
    assert_eq!(notes.0.borrow().len(), 1, "no wait for the dead");
}

#[test]
#[ignore = "the other side of a_killed_maker_leaves_nothing_that_counts"]
fn maker_process() {
    let Some(root) = env::var_os("COMPARE_TEST_CACHE").map(PathBuf::from) else { return };
    let cache = Cache::open(&root, &Silent).unwrap();
    let build = |staging: &Path| {
        write(staging, "half")?;
        fs::write(root.join("begun"), "").unwrap();
        thread::sleep(Duration::from_secs(60));
        Ok(())
    };
    cache.entry(recipe(&Digest::of(b"a"), false), &Silent, build, read).unwrap();
}

#[test]
fn a_damaged_entry_is_made_again_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), &Silent).unwrap();
    let key = Digest::of(b"a");
    cache.entry(recipe(&key, false), &Silent, |staging| write(staging, "1"), read).unwrap();
    fs::remove_file(cache.path(Kind::Image, &key).join("file")).unwrap();
    let notes = Notes::default();
    let entry =
        cache.entry(recipe(&key, false), &notes, |staging| write(staging, "2"), read).unwrap();
    assert_eq!(entry, Entry { value: "2".to_owned(), cached: false });
    assert!(notes.0.borrow()[0].starts_with("the image is damaged and is made again (cannot read"));
}

#[test]
fn a_full_disk_is_told_and_leaves_nothing() {
    use nix::{
        mount::{MsFlags, mount},
        sched::{CloneFlags, unshare},
    };
    let folder = tempfile::tempdir().unwrap();
    // A mount namespace of this thread alone, so that the mount is gone with it.
    let outcome = thread::scope(|scope| {
        scope
            .spawn(|| {
                let none = None::<&str>;
                unshare(CloneFlags::CLONE_NEWNS)?;
                mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
                mount(
                    Some("tmpfs"),
                    folder.path(),
                    Some("tmpfs"),
                    MsFlags::empty(),
                    Some("size=1m"),
                )?;
                let cache = Cache::open(folder.path(), &Silent).unwrap();
                let text = "x".repeat(2 << 20);
                let key = Digest::of(b"a");
                let error = cache
                    .entry(recipe(&key, false), &Silent, |staging| write(staging, &text), read)
                    .unwrap_err();
                assert_eq!((left(&cache), cache.path(Kind::Image, &key).exists()), (0, false));
                let inner = |staging: &Path| {
                    // A program of ours that meets the limit: dd says so on standard error.
                    let output = format!("of={}", staging.join("file").display());
                    crate::program::run(crate::program::command("dd").args([
                        "if=/dev/zero",
                        "bs=2M",
                        "count=1",
                        &output,
                    ]))
                    .map(drop)
                };
                let other = cache.entry(recipe(&key, false), &Silent, inner, read).unwrap_err();
                assert!(matches!(other, Error::DiskFull { .. }), "{other:?}");
                Ok::<_, nix::Error>(error.to_string())
            })
            .join()
            .unwrap()
    });
    match outcome {
        Ok(text) => assert!(
            text.starts_with("no space left for /") && text.contains("XDG_CACHE_HOME"),
            "{text}"
        ),
        Err(error) => crate::testing::skip(&format!("cannot mount a tmpfs: {error}")),
    }
}

#[test]
fn files_are_stored_under_their_digest() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), &Silent).unwrap();
    let store = |text: &[u8]| cache.file(Kind::Lab, "initramfs", text, &Silent).unwrap();
    let (one, two) = (store(b"a"), store(b"b"));
    assert_eq!((store(b"a"), fs::read(&two).unwrap()), (one, b"b".to_vec()));
    fs::write(&two, "damaged").unwrap();
    assert_eq!((store(b"b"), fs::read(&two).unwrap()), (two.clone(), b"b".to_vec()));
}

#[test]
fn what_was_not_used_for_long_is_trimmed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path(), &Silent).unwrap();
    let store = |number: u8| cache.file(Kind::Lab, "initramfs", &[number], &Silent).unwrap();
    let paths: Vec<PathBuf> = (0..12).map(store).collect();
    assert!(paths.iter().all(|path| path.exists()), "all were just used");
    let long_ago = SystemTime::now() - Duration::from_secs(7200);
    for path in &paths {
        fs::File::open(path.parent().unwrap()).unwrap().set_modified(long_ago).unwrap();
    }
    assert_eq!(store(3), paths[3]);
    store(100);
    let kept = paths.iter().filter(|path| path.exists()).count();
    assert_eq!((kept + 1, paths[3].exists()), (Kind::Lab.kept(), true));
    assert_eq!(left(&cache), 0);
}
