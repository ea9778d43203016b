//! What this process writes is its owner's alone: folders, files, and no image of its memory.
//!
//! Keys, other people's telemetry and the master key pass through memory and stand on the disk. So nothing it makes
//! can be read by another account, whatever mask it was started with, and a crash leaves no core file.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask};

/// Permissions of a folder that is its owner's alone.
const FOLDER_MODE: u32 = 0o700;

/// Bits that let another account in.
const OTHERS: u32 = 0o077;

/// Keeps what the process makes from now on to its owner: folders 0700, files 0600, no core file.
///
/// A kernel that refuses one of them is no reason not to start.
pub fn start() {
    umask(Mode::RWXG | Mode::RWXO);
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // A core handler that is a pipe asks neither for the limit.
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

/// Makes the data folder, or closes one to others that was open to them: everything stands below it.
///
/// # Errors
/// Where there is no folder and none can be made.
pub fn data_folder(data: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(data)?;
    let mode = fs::metadata(data)?.permissions().mode();
    if mode & OTHERS == 0 {
        return Ok(());
    }
    match fs::set_permissions(data, Permissions::from_mode(FOLDER_MODE)) {
        Ok(()) => {
            tracing::warn!(
                folder = %data.display(),
                mode = format!("{:o}", mode & 0o777),
                "the data folder was open to other accounts: it is 700 now"
            );
        }
        // Somebody else's folder, or a file system without permissions.
        Err(error) => {
            tracing::warn!(
                folder = %data.display(),
                mode = format!("{:o}", mode & 0o777),
                %error,
                "other accounts can read the data folder, and it cannot be closed to them: chmod 700 it"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::{FOLDER_MODE, data_folder};

    #[test]
    fn a_data_folder_is_its_owners_alone() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mode =
            |path: &std::path::Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        let fresh = folder.path().join("a/b");
        data_folder(&fresh).expect("made");
        assert_eq!(mode(&fresh), FOLDER_MODE);
        let open = folder.path().join("open");
        fs::create_dir(&open).expect("made");
        fs::set_permissions(&open, Permissions::from_mode(0o755)).expect("set");
        data_folder(&open).expect("closed");
        assert_eq!(mode(&open), FOLDER_MODE);
    }
}
