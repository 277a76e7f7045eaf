//! A file that gets its name when it is whole.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::PermissionsExt,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};
use tempfile::NamedTempFile;

/// Written first, named afterwards, and never over another file.
#[derive(Debug)]
pub struct NewFile {
    path: PathBuf,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Without a name: nothing is left of it, however the process ends.
    Unnamed(File),
    /// Where the file system has no such files: beside the final name, and gone with any error.
    Named(NamedTempFile),
}

impl NewFile {
    /// Empty, on the disk of `path`, and its owner's alone (mode 0600).
    pub fn create(path: &Path) -> io::Result<Self> {
        let folder = folder_of(path);
        let content = match unnamed(folder) {
            Ok(file) => Content::Unnamed(file),
            Err(_) => Content::Named(tempfile::Builder::new().prefix(".cohort-").tempfile_in(folder)?),
        };
        Ok(Self { path: path.to_owned(), content })
    }

    /// To write to.
    pub fn file(&mut self) -> &mut File {
        match &mut self.content {
            Content::Unnamed(file) => file,
            Content::Named(file) => file.as_file_mut(),
        }
    }

    /// Sets the final permissions, and waits until the content is on the disk.
    pub fn finish(&mut self, mode: u32) -> io::Result<()> {
        let file = self.file();
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()
    }

    /// Gives the name; the error is of kind `AlreadyExists` where another file has it.
    pub fn publish(self) -> io::Result<()> {
        match self.content {
            Content::Unnamed(file) => {
                linkat(CWD, own_descriptor(&file), CWD, &self.path, AtFlags::SYMLINK_FOLLOW)?;
            }
            Content::Named(file) => drop(file.persist_noclobber(&self.path).map_err(|error| error.error)?),
        }
        // The name is durable only once the folder is.
        File::open(folder_of(&self.path))?.sync_all()
    }
}

fn unnamed(folder: &Path) -> io::Result<File> {
    let mode = Mode::RUSR | Mode::WUSR;
    let file = File::from(open(folder, OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC, mode)?);
    // Its name will be made from this one, which needs /proc.
    fs::symlink_metadata(own_descriptor(&file))?;
    Ok(file)
}

fn own_descriptor(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()).into()
}

/// The folder that a file of this name is in.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};

    use super::*;

    /// With and without a name of its own until then.
    fn both(path: &Path) -> [NewFile; 2] {
        let named = Content::Named(tempfile::Builder::new().tempfile_in(folder_of(path)).unwrap());
        [NewFile::create(path).unwrap(), NewFile { path: path.to_owned(), content: named }]
    }

    #[test]
    fn it_appears_whole_and_with_its_permissions() {
        for turn in 0..2 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("new");
            let mut file = both(&path).into_iter().nth(turn).unwrap();
            file.file().write_all(b"all of it").unwrap();
            assert!(!path.exists());
            file.finish(0o640).unwrap();
            file.publish().unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"all of it");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn it_takes_nobodys_name_and_leaves_nothing_unpublished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("taken");
        fs::write(&path, b"mine").unwrap();
        for file in both(&path) {
            assert_eq!(file.publish().unwrap_err().kind(), ErrorKind::AlreadyExists);
        }
        drop(both(&path));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
