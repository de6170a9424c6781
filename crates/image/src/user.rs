//! Whom a workload runs as: names are looked up in the image's own `/etc/passwd` and `/etc/group`
//! (passwd(5), group(5)), never in the host's.

use std::path::Path;

use crate::{
    error::{Error, Result},
    rooted::Root,
};

/// A user by number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, sorted.
    pub groups: Vec<u32>,
}

struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

/// Finds `user` or `user:group`, by name or number, in the tree of an image.
///
/// As in an OCI runtime: without a group, the primary group is the account's, or 0 for a number
/// that no account has, and the supplementary groups are those that list the account; with a
/// group, it alone counts. `root` and numbers need no `/etc/passwd`.
///
/// # Errors
/// The tree does not know the name; the message lists those it knows.
pub fn resolve_user(tree: &Path, user: &str) -> Result<User> {
    let root = Root::open(tree)?;
    let lines = |path: &str| -> Result<Vec<Vec<String>>> {
        let text = root.read(Path::new(path))?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        Ok(text.lines().map(|line| line.split(':').map(str::to_owned).collect()).collect())
    };
    let accounts: Vec<Account> =
        lines("etc/passwd")?.iter().filter_map(|fields| account(fields)).collect();
    let groups: Vec<Group> =
        lines("etc/group")?.iter().filter_map(|fields| group(fields)).collect();
    let wrong = |problem| Error::User { user: user.to_owned(), problem };

    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let number = parse(name);
    let known = accounts.iter().find(|account| account.name == name || Some(account.uid) == number);
    let (uid, gid) = match (known, number) {
        (Some(account), _) => (account.uid, account.gid),
        (None, Some(uid)) => (uid, 0),
        (None, None) if name == "root" => (0, 0),
        (None, None) => {
            let names = accounts.iter().map(|account| account.name.as_str());
            return Err(wrong(format!("no such user in the image's /etc/passwd; {}", list(names))));
        }
    };
    let Some(wanted) = group_name else {
        let listed =
            |group: &&Group| known.is_some_and(|account| group.members.contains(&account.name));
        let mut supplementary: Vec<u32> =
            groups.iter().filter(listed).map(|group| group.gid).collect();
        supplementary.retain(|other| *other != gid);
        supplementary.sort_unstable();
        supplementary.dedup();
        return Ok(User { uid, gid, groups: supplementary });
    };
    let gid = groups
        .iter()
        .find(|group| group.name == wanted)
        .map(|group| group.gid)
        .or_else(|| parse(wanted));
    let root_group = || (wanted == "root").then_some(0);
    let gid = gid.or_else(root_group).ok_or_else(|| {
        let names = groups.iter().map(|group| group.name.as_str());
        wrong(format!("no group `{wanted}` in the image's /etc/group; {}", list(names)))
    })?;
    Ok(User { uid, gid, groups: Vec::new() })
}

/// The highest number means "no change" to chown(2) and setresuid(2), and is nobody's.
fn parse(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|number| *number != u32::MAX)
}

fn account(fields: &[String]) -> Option<Account> {
    let name = fields.first().filter(|name| !name.is_empty())?.clone();
    Some(Account { name, uid: parse(fields.get(2)?)?, gid: parse(fields.get(3)?)? })
}

fn group(fields: &[String]) -> Option<Group> {
    let members = fields
        .get(3)
        .map(String::as_str)
        .unwrap_or_default()
        .split(',')
        .map(str::to_owned)
        .collect();
    Some(Group { name: fields.first()?.clone(), gid: parse(fields.get(2)?)?, members })
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    match names.as_slice() {
        [] => "it lists none: use a number".to_owned(),
        names => format!("it lists {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33::/var/www:/bin/false\nbroken:x:y\n\n";
        fs::write(folder.path().join("etc/passwd"), passwd).unwrap();
        fs::write(
            folder.path().join("etc/group"),
            "root:x:0:\nwww-data:x:33:\nssl:x:101:www-data,other\nweb:x:7:www-data\n",
        )
        .unwrap();
        folder
    }

    #[test]
    fn names_and_numbers_are_found() {
        let folder = tree();
        let find = |user| resolve_user(folder.path(), user).unwrap();
        let user = |uid, gid, groups: &[u32]| User { uid, gid, groups: groups.to_vec() };
        assert_eq!(find("root"), user(0, 0, &[]));
        assert_eq!(find("www-data"), user(33, 33, &[7, 101]));
        assert_eq!(find("33"), user(33, 33, &[7, 101]));
        assert_eq!(find("1000"), user(1000, 0, &[]));
        assert_eq!(find("www-data:ssl"), user(33, 101, &[]));
        assert_eq!(find("1000:1000"), user(1000, 1000, &[]));
    }

    #[test]
    fn what_is_not_there_is_told_with_what_is() {
        let folder = tree();
        let error = |user| resolve_user(folder.path(), user).unwrap_err().to_string();
        assert_eq!(
            error("nginx"),
            "user `nginx`: no such user in the image's /etc/passwd; it lists root, www-data"
        );
        assert_eq!(
            error("root:none"),
            "user `root:none`: no group `none` in the image's /etc/group; it lists root, www-data, ssl, web"
        );
        for bad in ["", "4294967295", "-1", "+1", "broken", ":"] {
            assert!(resolve_user(folder.path(), bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_image_without_accounts_has_root_and_numbers() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            resolve_user(folder.path(), "root:root").unwrap(),
            User { uid: 0, gid: 0, groups: vec![] }
        );
        assert_eq!(resolve_user(folder.path(), "65534:65534").unwrap().uid, 65534);
        assert!(
            resolve_user(folder.path(), "www-data")
                .unwrap_err()
                .to_string()
                .contains("use a number")
        );
    }

    #[test]
    fn the_hosts_accounts_are_not_seen() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        std::os::unix::fs::symlink(
            "../../../../../../../../etc/passwd",
            folder.path().join("etc/passwd"),
        )
        .unwrap();
        // Inside the image the link leads to itself.
        assert!(resolve_user(folder.path(), "daemon").is_err());
    }
}
