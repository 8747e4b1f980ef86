//! The archive that a kernel unpacks into memory and boots from.
//!
//! The format is `newc`, of which the kernel's Documentation/driver-api/early-userspace/buffer-format.rst
//! says what matters.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::Path,
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
/// The length of a header.
const HEADER: usize = 110;
/// Names and contents are filled up to a multiple of this many bytes.
const ALIGNMENT: usize = 4;

/// An archive that is being written.
pub(super) struct Archive<W> {
    to: W,
    /// Paths in it.
    paths: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    /// Begins an archive.
    pub(super) fn new(to: W) -> Self {
        Self { to, paths: BTreeSet::new() }
    }

    /// Adds a directory, and those above it.
    pub(super) fn directory(&mut self, path: &str) -> Result<()> {
        for (at, _) in path.match_indices('/').skip(1).chain([(path.len(), "")]) {
            if self.paths.insert(path[..at].to_owned()) {
                self.entry(&path[1..at], DIRECTORY, &[])?;
            }
        }
        Ok(())
    }

    /// Adds a file of the host, unless there is one of this path.
    pub(super) fn file(&mut self, path: &str, from: &Path) -> Result<()> {
        let (parent, _) = path.rsplit_once('/').context("a path begins with a slash")?;
        if !parent.is_empty() {
            self.directory(parent)?;
        }
        if self.paths.insert(path.to_owned()) {
            let contents =
                fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
            self.entry(&path[1..], EXECUTABLE, &contents)?;
        }
        Ok(())
    }

    /// Adds a program of the host with the shared libraries it needs.
    pub(super) fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        self.file(path, from)?;
        let output = Command::new("ldd").arg(from).output().context("cannot run ldd")?;
        ensure!(output.status.success(), "ldd cannot read {}", from.display());
        for library in libraries(&String::from_utf8_lossy(&output.stdout)) {
            self.file(library, Path::new(library))?;
        }
        Ok(())
    }

    /// Ends the archive.
    pub(super) fn finish(mut self) -> Result<()> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.to.flush()?)
    }

    fn entry(&mut self, name: &str, mode: u32, contents: &[u8]) -> io::Result<()> {
        let (inode, links) = (self.paths.len(), 1);
        let (length, name_length) = (contents.len(), name.len() + 1);
        // Inode, mode, owner, group, links, time, length, four device numbers, and the length of
        // the name; the checksum is not used.
        write!(self.to, "070701{inode:08x}{mode:08x}{:016x}{links:08x}{:08x}", 0, 0)?;
        write!(self.to, "{length:08x}{:032x}{name_length:08x}{:08x}{name}", 0, 0)?;
        // At least one zero ends the name.
        self.fill(HEADER + name.len(), 1)?;
        self.to.write_all(contents)?;
        self.fill(contents.len(), 0)
    }

    /// Writes zeros, at least so many, up to the alignment.
    fn fill(&mut self, written: usize, least: usize) -> io::Result<()> {
        let zeros = (written + least).next_multiple_of(ALIGNMENT) - written;
        self.to.write_all(&[0; 2 * ALIGNMENT][..zeros])
    }
}

/// The paths in what `ldd` prints.
fn libraries(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_directories_come_before_their_files() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.file("/a/b/c", Path::new("/dev/null")).unwrap();
        archive.finish().unwrap();

        let names = ["a", "a/b", "a/b/c", "TRAILER!!!"];
        let mut at = 0;
        for name in names {
            assert_eq!(&bytes[at..at + 6], b"070701");
            let start = at + HEADER;
            assert_eq!(&bytes[start..start + name.len()], name.as_bytes());
            assert_eq!(bytes[start + name.len()], 0);
            at = (start + name.len() + 1).next_multiple_of(ALIGNMENT);
        }
        assert_eq!(at, bytes.len());
    }

    #[test]
    fn libraries_are_found_in_what_ldd_prints() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd5a5f2000)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f0000000000)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f0000000000)\n";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert!(libraries(text).eq(expected));
    }
}
