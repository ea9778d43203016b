//! The master key: where it comes from, and what is derived from it.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::config::{Error, master_key_bytes};

const FILE: &str = "master.key";

/// Keys derived from the master key, each for one purpose.
pub struct Derived {
    /// Keys the hashes under which API keys are stored.
    pub pepper: Zeroizing<[u8; 32]>,
    /// Keys the hashes by which the scrubber replaces values.
    pub scrub: Zeroizing<[u8; 32]>,
    /// Keys the hashes under which declared keys are kept.
    pub declared: Zeroizing<[u8; 32]>,
    /// Says which master key a deployment belongs to, and nothing about it.
    pub check: String,
}

/// Takes the configured master key, else that of the data folder, else makes one there (loopback only).
///
/// # Errors
/// Where there is none and none may be made, or where others than its owner can read the file.
pub fn load(configured: Option<&SecretString>, data: &Path, is_loopback: bool) -> Result<Derived, Error> {
    if let Some(secret) = configured {
        return Ok(derive(&master_key_bytes(secret.expose_secret())?));
    }
    let path = data.join(FILE);
    match File::open(&path) {
        Ok(mut file) => {
            let shown = path.display();
            let failed = |error: std::io::Error| Error::new(format!("cannot read {shown}: {error}"));
            let mode = file.metadata().map_err(failed)?.permissions().mode();
            if mode & 0o077 != 0 {
                return Err(Error::new(format!("others can read {shown}: set its mode to 600")));
            }
            let mut text = Zeroizing::new(String::new());
            file.read_to_string(&mut text).map_err(failed)?;
            Ok(derive(&master_key_bytes(&text)?))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && is_loopback => {
            let bytes = make(&path)
                .map_err(|error| Error::new(format!("cannot make {}: {error}", path.display())))?;
            Ok(derive(&bytes))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::new(
            "FLOODMARK_MASTER_KEY is not set: other than on loopback it must be given, base64 of 32 random bytes",
        )),
        Err(error) => Err(Error::new(format!("cannot open {}: {error}", path.display()))),
    }
}

fn make(path: &Path) -> std::io::Result<Zeroizing<[u8; 32]>> {
    let mut bytes = Zeroizing::new([0_u8; 32]);
    getrandom::fill(&mut *bytes).map_err(std::io::Error::other)?;
    let text = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(*bytes));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{}", *text)?;
    file.sync_all()?;
    // Every key of this deployment depends on the file: its name must survive a crash too.
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok(bytes)
}

fn derive(master: &[u8; 32]) -> Derived {
    let pepper = Zeroizing::new(blake3::derive_key("floodmark 2026-11 api key pepper", master));
    let scrub = Zeroizing::new(blake3::derive_key("floodmark 2026-11 scrub hash key", master));
    let declared = Zeroizing::new(blake3::derive_key("floodmark 2026-11 declared key hash", master));
    let check = blake3::derive_key("floodmark 2026-11 master key check", master);
    Derived { pepper, scrub, declared, check: hex::encode(&check[..8]) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::load;

    #[test]
    fn it_is_made_once_on_loopback_and_never_elsewhere() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        assert!(load(None, folder.path(), false).is_err());
        let first = load(None, folder.path(), true).map_err(|e| e.to_string()).expect("made");
        let again = load(None, folder.path(), false).map_err(|e| e.to_string()).expect("read");
        assert_eq!((&*first.pepper, &first.check), (&*again.pepper, &again.check));
        let path = folder.path().join("master.key");
        let mode =
            |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
        assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
        mode(0o644);
        assert!(load(None, folder.path(), true).is_err());
    }
}
