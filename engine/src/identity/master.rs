//! The master key: where it comes from, and what is derived from it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::config::{Error, master_key_bytes};

const FILE: &str = "master.key";

/// Bytes of the file that are read: a key is 44, and what is longer is none.
const FILE_BYTES_MAX: u64 = 4 << 10;

/// Keys derived from the master key, each for one purpose.
pub struct Derived {
    /// Keys the hashes under which API keys are stored.
    pub pepper: Zeroizing<[u8; 32]>,
    /// Keys the hashes by which the scrubber replaces values.
    pub scrub: Zeroizing<[u8; 32]>,
    /// Keys the proofs of the records below `system/`.
    pub state: Zeroizing<[u8; 32]>,
    /// Keys the hashes under which declared keys are kept.
    pub declared: Zeroizing<[u8; 32]>,
    /// Says which master key a deployment belongs to, and nothing about it.
    pub check: String,
}

/// A master key, and whether it is kept yet.
pub struct Master {
    /// What is derived from it.
    pub derived: Derived,
    /// One that was just made, and where it is to be kept.
    unsaved: Option<(PathBuf, Zeroizing<String>)>,
}

impl Master {
    /// Keeps a key that was just made, durably: the file is there whole or not at all. To be called once the data folder
    /// is locked and is known to be new.
    ///
    /// # Errors
    /// Where it cannot be written: nothing may be made under this key then.
    pub fn save(&self) -> Result<(), Error> {
        let Some((path, text)) = &self.unsaved else { return Ok(()) };
        write_whole(path, text)
            .map_err(|error| Error::new(format!("cannot make {}: {error}", path.display())))
    }
}

/// Takes the configured master key, else that of the data folder, else makes one (loopback only), which is kept nowhere
/// yet. `has_deployment` tells that something was made here under a master key before: no other one is made then.
///
/// # Errors
/// Where there is none and none may be made, or where others than its owner can read the file.
pub fn load(
    configured: Option<&SecretString>,
    data: &Path,
    is_loopback: bool,
    has_deployment: bool,
) -> Result<Master, Error> {
    if let Some(secret) = configured {
        return Ok(kept(&master_key_bytes(secret.expose_secret())?));
    }
    let path = data.join(FILE);
    if let Some(text) = read(&path)? {
        return Ok(kept(&master_key_bytes(&text)?));
    }
    if has_deployment {
        return Err(Error::new(format!(
            "the master key of this data folder is gone: put it back as {}, or set FLOODMARK_MASTER_KEY; nothing was \
             changed",
            path.display()
        )));
    }
    if !is_loopback {
        return Err(Error::new(
            "FLOODMARK_MASTER_KEY is not set: other than on loopback it must be given, base64 of 32 random bytes",
        ));
    }
    let mut bytes = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *bytes).map_err(|error| Error::new(format!("cannot make a master key: {error}")))?;
    let text = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(*bytes));
    Ok(Master { derived: derive(&bytes), unsaved: Some((path, text)) })
}

fn kept(bytes: &[u8; 32]) -> Master {
    Master { derived: derive(bytes), unsaved: None }
}

/// The file's text; `None` where there is none, or an empty one, which a crash of an earlier build has left.
fn read(path: &Path) -> Result<Option<Zeroizing<String>>, Error> {
    let shown = path.display();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::new(format!("cannot open {shown}: {error}"))),
    };
    let failed = |error: std::io::Error| Error::new(format!("cannot read {shown}: {error}"));
    let metadata = file.metadata().map_err(failed)?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(Error::new(format!("others can read {shown}: set its mode to 600")));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok((!text.trim().is_empty()).then_some(text))
}

fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let aside = path.with_extension("key.part");
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&aside)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&aside, path)?;
    // Every key of this deployment depends on the file: its name must survive a crash too.
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn derive(master: &[u8; 32]) -> Derived {
    let pepper = Zeroizing::new(blake3::derive_key("floodmark 2026-11 api key pepper", master));
    let scrub = Zeroizing::new(blake3::derive_key("floodmark 2026-11 scrub hash key", master));
    let state = Zeroizing::new(blake3::derive_key("floodmark 2026-11 state record proof", master));
    let declared = Zeroizing::new(blake3::derive_key("floodmark 2026-11 declared key hash", master));
    let check = blake3::derive_key("floodmark 2026-11 master key check", master);
    Derived { pepper, scrub, state, declared, check: hex::encode(&check[..8]) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::{Master, load};

    fn open(folder: &Path, is_loopback: bool, has_deployment: bool) -> Result<Master, String> {
        load(None, folder, is_loopback, has_deployment).map_err(|error| error.to_string())
    }

    #[test]
    fn it_is_made_once_on_loopback_and_never_elsewhere() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(open(folder.path(), false, false).is_err());
        let first = open(folder.path(), true, false).expect("made");
        let path = folder.path().join("master.key");
        assert!(!path.exists(), "nothing is written before the folder is known to be new");
        first.save().expect("kept");
        let again = open(folder.path(), false, true).expect("read");
        assert_eq!(
            (&*first.derived.pepper, &first.derived.check),
            (&*again.derived.pepper, &again.derived.check)
        );
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "nothing is left aside");
        let mode =
            |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        mode(0o644);
        assert!(open(folder.path(), true, false).is_err());
    }

    #[test]
    fn what_a_crash_left_of_the_file_is_no_key_and_in_nobodys_way() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("master.key");
        std::fs::write(folder.path().join("master.key.part"), "half").expect("written");
        std::fs::write(&path, "").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("chmod");
        let made = open(folder.path(), true, false).expect("made");
        made.save().expect("kept");
        let again = open(folder.path(), true, true).expect("read");
        assert_eq!(made.derived.check, again.derived.check);
    }

    #[test]
    fn no_key_is_made_for_a_deployment_that_has_lost_its_own() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(open(folder.path(), true, true).err().expect("refused").contains("put it back"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0, "nothing was written");
    }
}
