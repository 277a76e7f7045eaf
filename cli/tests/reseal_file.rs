//! `cohort seal --recovery-file` and `cohort reseal` without a chain.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use alloy::primitives::{Address, B256};
use cohort_cli::{
    failure::{Exit, Failure},
    inspect::inspect_file,
    seal::{
        Interrupt, Place, SealFileError, SealInput, SealReport,
        reseal::{ResealInput, ResealReport, reseal_file},
        seal_file,
    },
};
use cohort_protocol::{
    hpke::{KeyPair, SecretBytes},
    ids::ComposeHash,
    sealed::{self, ResealPart, ResealTarget, wrap_key_from_root},
};
use tempfile::TempDir;

const PLAIN: &[u8] = b"a,b\n1,2\n";

struct Site(TempDir);

impl Site {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn seal(&self, name: &str) -> SealReport {
        let path = self.path("a.csv");
        fs::write(&path, PLAIN).unwrap();
        let target = target(1);
        let input = SealInput {
            owner: target.owner,
            input: path,
            output: Some(self.path(&format!("{name}.tar"))),
            chain_id: target.chain_id,
            app: target.app,
            compose_hash: target.compose_hash,
            root_epoch: target.root_epoch,
            root_key: target.root,
            no_metadata: false,
            recovery: Some(self.path(&format!("{name}.key"))),
            reads: vec![],
        };
        seal_file(&input).unwrap()
    }

    fn reseal(
        &self,
        name: &str,
        recovery: &str,
        part: ResealPart,
        out: &str,
    ) -> Result<ResealReport, Failure> {
        let input =
            ResealInput { file: self.path(name), recovery: self.path(recovery), target: target(2), part };
        reseal_file(&input, &mut Place::File(self.path(out)), &Interrupt::default()).map_err(Failure::from)
    }

    fn opened(&self, name: &str) -> Vec<u8> {
        let file = fs::read(self.path(name)).unwrap();
        let envelope = sealed::read_header(&mut &file[..]).unwrap();
        let key = wrap_key_from_root(&root(), &envelope.context(), envelope.enc()).unwrap();
        sealed::open(&mut &file[..], &key, 1 << 20).unwrap().0.to_vec()
    }
}

fn root() -> KeyPair {
    KeyPair::derive(&SecretBytes::new([7; 32]))
}

fn target(recipe: u8) -> ResealTarget {
    ResealTarget {
        chain_id: 31337,
        app: Address::repeat_byte(0x4f),
        compose_hash: ComposeHash(B256::repeat_byte(recipe)),
        owner: "hospital-A".parse().unwrap(),
        root_epoch: 0,
        root: root().public_key().clone(),
    }
}

#[test]
fn a_sealed_file_gets_another_recipe_without_its_plaintext() {
    let site = Site::new();
    let old = site.seal("old");
    let mode = fs::metadata(site.path("old.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    fs::remove_file(site.path("a.csv")).unwrap();
    let before = fs::read(site.path("old.tar")).unwrap();

    let report = site.reseal("old.tar", "old.key", ResealPart::Whole, "new.tar").unwrap();
    let card = inspect_file(&site.path("new.tar")).unwrap();
    assert_eq!((card.dataset_id, card.analysis_compose_hash), (report.dataset_id, target(2).compose_hash));
    assert_eq!((card.rows, card.sealed_bytes), (Some(1), report.sealed_bytes));
    assert_ne!(card.dataset_id, old.dataset_id);
    assert_eq!(site.opened("new.tar"), PLAIN);
    assert_eq!(fs::read(site.path("old.tar")).unwrap(), before, "the old file stays");
}

#[test]
fn the_head_joins_as_the_report_says() {
    let site = Site::new();
    site.seal("old");
    let report = site.reseal("old.tar", "old.key", ResealPart::Head, "new.head").unwrap();
    let text = report.to_string();
    let line = text.lines().find(|line| line.contains("tail -c")).unwrap();
    let command = line.split_once(": ").unwrap().1;
    let command = command.replace("HEAD", "new.head").replace("OLD", "old").replace("NEW", "new");
    let done =
        std::process::Command::new("sh").args(["-c", &command]).current_dir(site.0.path()).status().unwrap();
    assert!(done.success());
    assert_eq!(inspect_file(&site.path("new.tar")).unwrap().dataset_id, report.dataset_id);
    assert_eq!(site.opened("new.tar"), PLAIN);
}

/// Words, hint, exit code, and nothing under the final name.
fn refused(site: &Site, outcome: Result<ResealReport, Failure>, words: &str, hint: &str, exit: Exit) {
    let failure = outcome.unwrap_err();
    assert!(failure.message.contains(words), "{}", failure.message);
    assert!(failure.hint.as_ref().unwrap().contains(hint), "{:?}", failure.hint);
    assert_eq!(failure.exit, exit);
    assert!(!site.path("new.tar").exists());
}

#[test]
fn mistakes_are_named() {
    let site = Site::new();
    site.seal("old");
    site.seal("other");
    let whole = |file: &str, key: &str| site.reseal(file, key, ResealPart::Whole, "new.tar");
    refused(&site, whole("absent.tar", "old.key"), "cannot read", "check the path", Exit::Input);
    refused(&site, whole("old.tar", "absent.key"), "cannot read", "check the path", Exit::Input);
    let outcome = whole("old.tar", "other.key");
    refused(&site, outcome, "other.key is not usable: the recovery record", "--recovery-file", Exit::Input);
    let outcome = whole("a.csv", "old.key");
    refused(&site, outcome, "not an intact sealed dataset (tar)", "get the file again", Exit::Refused);

    fs::set_permissions(site.path("old.key"), fs::Permissions::from_mode(0o640)).unwrap();
    refused(&site, whole("old.tar", "old.key"), "can be read by others (mode 640)", "chmod 600", Exit::Input);
    fs::set_permissions(site.path("old.key"), fs::Permissions::from_mode(0o600)).unwrap();

    let mut bytes = fs::read(site.path("old.tar")).unwrap();
    let at = bytes.len() - 2048 - 500;
    bytes[at] ^= 1;
    fs::write(site.path("changed.tar"), &bytes).unwrap();
    let outcome = whole("changed.tar", "old.key");
    refused(&site, outcome, "not an intact sealed dataset", "get the file again", Exit::Refused);

    let input = ResealInput {
        file: site.path("old.tar"),
        recovery: site.path("old.key"),
        target: target(1),
        part: ResealPart::Whole,
    };
    let error =
        reseal_file(&input, &mut Place::File(site.path("new.tar")), &Interrupt::default()).unwrap_err();
    assert!(matches!(error, SealFileError::SameRecipe { .. }));
    refused(&site, Err(error.into()), "sealed for this recipe already", "--compose", Exit::Input);
}

#[test]
fn neither_result_nor_recovery_file_is_overwritten() {
    let site = Site::new();
    site.seal("old");
    fs::write(site.path("new.tar"), b"mine").unwrap();
    let failure = site.reseal("old.tar", "old.key", ResealPart::Whole, "new.tar").unwrap_err();
    assert!(failure.message.contains("exists already"));
    assert_eq!(fs::read(site.path("new.tar")).unwrap(), b"mine");

    let key = fs::read(site.path("old.key")).unwrap();
    fs::remove_file(site.path("old.tar")).unwrap();
    let again = std::panic::catch_unwind(|| site.seal("old"));
    assert!(again.is_err());
    assert_eq!(fs::read(site.path("old.key")).unwrap(), key);
    assert!(!Path::new(&site.path("old.tar")).exists(), "no sealed file without its recovery file");
}
