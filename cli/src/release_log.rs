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
    /// The file or the KMS that it is from.
    pub name: String,
    /// Its entries.
    pub entries: Vec<Entry>,
    /// Where it ends.
    pub head: Head,
    /// Bytes of an unfinished last line: what a crash while writing leaves.
    pub torn_bytes: usize,
    /// Its end as the KMS signed it; none where it was read from a file.
    pub signed: Option<SignedHead>,
    /// Heads that were kept, each with whether this log goes on from it.
    known: Vec<(Head, bool)>,
}

impl Log {
    /// Empty. It remembers which of the heads that were kept it goes on from.
    pub fn new(name: impl ToString, known: &[SignedHead]) -> Self {
        let head = Head::empty();
        let known = known.iter().map(|signed| (signed.head, signed.head == head)).collect();
        Self { name: name.to_string(), entries: Vec::new(), head, torn_bytes: 0, signed: None, known }
    }

    fn accept(&mut self, line: &[u8]) -> Outcome {
        let number = self.head.entries + 1;
        let line = self.head.accept(line).map_err(|what| self.damaged(number, what))?;
        self.known.iter_mut().for_each(|(known, is_met)| *is_met |= *known == self.head);
        self.entries.push(line.entry);
        Ok(())
    }

    fn damaged(&self, line: u64, what: &str) -> Failure {
        Failure::refused(
            format!("the release log {} is damaged at line {line}: {what}", self.name),
            "keep this copy as evidence, and ask the KMS operator",
        )
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
                    return Err(self.damaged(self.head.entries + 1, "it is longer than 65,536 bytes"));
                }
                None => {
                    self.torn_bytes = bytes;
                    return Ok(());
                }
            }
        }
    }

    /// Reads the log from a KMS up to the head that it signs now.
    pub async fn ask(&mut self, kms: &Service<'_>) -> Outcome {
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
                        .map_err(|_| self.damaged(self.head.entries + 1, "it has no canonical form"))?;
                    self.accept(&bytes)?;
                }
            }
            if self.head.entries == before {
                return Err(self.damaged(before + 1, "the KMS does not show it"));
            }
        }
        if self.head == signed.head {
            self.signed = Some(signed);
            return Ok(());
        }
        Err(self.damaged(self.head.entries, "the log ends otherwise than the head that the KMS signed"))
    }
}

/// What was kept must be a beginning of one of these logs: replicas of a KMS have a log each, and one root.
pub fn check_known(logs: &[Log], known: &[SignedHead]) -> Outcome {
    for (index, SignedHead { head, .. }) in known.iter().enumerate() {
        let goes_on = |log: &Log| log.known.get(index).is_some_and(|(_, is_met)| *is_met);
        if !logs.iter().any(goes_on) {
            return Err(Failure::refused(
                format!(
                    "a release log was rewritten: at {} entries none ends in {} any more",
                    head.entries, head.hash
                ),
                "keep both, and show them to the owners: the KMS operator removed or changed entries",
            ));
        }
    }
    Ok(())
}
