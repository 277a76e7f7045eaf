//! A KMS's release log, read from a copy or from the KMS, every entry and its hash verified.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
};

use cohort_protocol::release_log::{Entry, Head, LINE_BYTES_MAX, Page, SignedHead};

use crate::{
    failure::{Failure, Outcome},
    http::Service,
};

/// A log as far as it was read and verified.
pub struct Log {
    /// Its entries.
    pub entries: Vec<Entry>,
    /// Where it ends.
    pub head: Head,
    /// Bytes of an unfinished last line: what a crash while writing leaves.
    pub torn_bytes: usize,
    known: Option<Head>,
    known_is_met: bool,
}

fn damaged(line: u64, what: &str) -> Failure {
    Failure::refused(
        format!("the release log is damaged at line {line}: {what}"),
        "keep this copy as evidence, and ask the KMS operator",
    )
}

impl Log {
    /// Empty; it must go on from `known` if that is given.
    pub fn new(known: Option<&SignedHead>) -> Self {
        let (head, known) = (Head::empty(), known.map(|signed| signed.head));
        Self { entries: Vec::new(), head, torn_bytes: 0, known, known_is_met: known == Some(head) }
    }

    fn accept(&mut self, line: &[u8]) -> Outcome {
        let number = self.head.entries + 1;
        let line = self.head.accept(line).map_err(|what| damaged(number, what))?;
        self.known_is_met |= self.known == Some(self.head);
        self.entries.push(line.entry);
        Ok(())
    }

    /// Reads a copy of the log's file.
    pub fn read_file(&mut self, path: &Path) -> Outcome {
        let failed = |e: std::io::Error| Failure::read(path, &e);
        let mut reader = BufReader::new(File::open(path).map_err(failed)?);
        let mut buffer = Vec::new();
        loop {
            buffer.clear();
            let limited = reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut buffer);
            let bytes = limited.map_err(failed)?;
            match buffer.strip_suffix(b"\n") {
                Some(line) => self.accept(line)?,
                None if bytes as u64 == LINE_BYTES_MAX => {
                    return Err(damaged(self.head.entries + 1, "it is longer than 65,536 bytes"));
                }
                None => {
                    self.torn_bytes = bytes;
                    return Ok(());
                }
            }
        }
    }

    /// Reads the log from a KMS up to the head that it signs now.
    pub async fn ask(&mut self, kms: &Service<'_>) -> Outcome<SignedHead> {
        let signed: SignedHead = kms.get("v1/log/head").await?.ready("the KMS")?;
        if !signed.is_signed() {
            return Err(Failure::refused(
                "the KMS's log head is not signed by the root that it names",
                "ask the KMS operator",
            ));
        }
        while self.head.entries < signed.head.entries {
            let path = format!("v1/log?from={}", self.head.entries);
            let page: Page = kms.get(&path).await?.ready("the KMS")?;
            let before = self.head.entries;
            for line in page.entries {
                if self.head.entries < signed.head.entries {
                    let bytes = cohort_protocol::json::canonical(&line)
                        .map_err(|_| damaged(self.head.entries + 1, "it has no canonical form"))?;
                    self.accept(&bytes)?;
                }
            }
            if self.head.entries == before {
                return Err(damaged(before + 1, "the KMS does not show it"));
            }
        }
        if self.head == signed.head {
            return Ok(signed);
        }
        Err(damaged(self.head.entries, "the log ends otherwise than the head that the KMS signed"))
    }

    /// What was kept must be a beginning of this log.
    pub fn check_known(&self) -> Outcome {
        match self.known {
            Some(known) if !self.known_is_met => Err(Failure::refused(
                format!(
                    "the release log was rewritten: at {} entries it does not end in {} any more",
                    known.entries, known.hash
                ),
                "keep both, and show them to the owners: the KMS operator removed or changed entries",
            )),
            _ => Ok(()),
        }
    }
}
