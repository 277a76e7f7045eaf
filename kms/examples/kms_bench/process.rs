//! The services, as processes of their own.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use crate::support::consortium::{CONFIRMATIONS, Consortium, ROOT_SECRET};

/// Where the programs are.
pub(crate) struct Programs {
    kms: PathBuf,
    indexer: PathBuf,
}

/// Beside this one's folder, or as COHORT_KMS and COHORT_INDEXER say.
pub(crate) fn programs() -> Option<Programs> {
    let folder = std::env::current_exe().ok()?.parent()?.parent()?.to_owned();
    let program = |variable: &str, name: &str| {
        let path = std::env::var_os(variable).map_or_else(|| folder.join(name), PathBuf::from);
        if !path.exists() {
            println!("skipped: {} is missing; run: make bench-kms", path.display());
            return None;
        }
        Some(path)
    };
    Some(Programs {
        kms: program("COHORT_KMS", "cohort-kms")?,
        indexer: program("COHORT_INDEXER", "cohort-indexer")?,
    })
}

/// One of them; ends with this process.
pub(crate) struct Service {
    child: Child,
    pub(crate) url: reqwest::Url,
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Service {
    pub(crate) fn indexer(programs: &Programs, consortium: &Consortium, dir: &Path) -> Self {
        let mut command = Command::new(&programs.indexer);
        command.args(["--listen", "127.0.0.1:0", "--rpc-url", consortium.anvil.url.as_str()]);
        command.args(["--registry", &consortium.registry.to_string()]);
        command.args(["--confirmations", &CONFIRMATIONS.to_string()]);
        command.arg("--database").arg(dir.join("indexer.sqlite"));
        Self::start(command, dir)
    }

    /// Without limits on rates, which would be all that is measured.
    pub(crate) fn kms(programs: &Programs, consortium: &Consortium, indexer: &Self, dir: &Path) -> Self {
        let root = dir.join("root");
        let mut file = std::fs::OpenOptions::new();
        let mut file = file.write(true).create_new(true).mode(0o600).open(&root).expect("the root's file");
        std::io::Write::write_all(&mut file, hex::encode(ROOT_SECRET).as_bytes()).expect("the root's file");
        let platform = dir.join("platform.pem");
        let certificate = consortium.guest.platform().root_certificate_pem().expect("a certificate");
        std::fs::write(&platform, certificate).expect("the platform's root");
        let mut command = Command::new(&programs.kms);
        command.args(["serve", "--listen", "127.0.0.1:0", "--rpc-url", consortium.anvil.url.as_str()]);
        command.args(["--indexer-url", indexer.url.as_str(), "--chain-id", "31337"]);
        command.args(["--registry", &consortium.registry.to_string()]);
        command.args(["--confirmations", &CONFIRMATIONS.to_string()]);
        command.args(["--max-head-age-seconds", "86400", "--requests-per-second", "100000000"]);
        command.arg("--insecure-root-file").arg(root);
        command.arg("--insecure-dev-attestation-root").arg(platform);
        command.arg("--log").arg(dir.join("release.log"));
        command.env("RUST_LOG", "error");
        Self::start(command, dir)
    }

    fn start(mut command: Command, dir: &Path) -> Self {
        let log = std::fs::File::create(dir.join("stderr")).expect("a file");
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(log)
            .stdin(Stdio::null())
            .spawn()
            .expect("the service starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let url =
            lines.find_map(|line| line.ok()?.split_once("http://").map(|(_, url)| format!("http://{url}")));
        let said = || std::fs::read_to_string(dir.join("stderr")).unwrap_or_default();
        let url = url.unwrap_or_else(|| panic!("the service ended: {}", said()));
        std::thread::spawn(move || lines.for_each(drop)); // or its pipe fills up
        Self { child, url: url.trim().parse().expect("its address") }
    }

    /// CPU that it used so far: user and system, from `/proc/PID/stat` in hundredths of a second.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("Linux");
        let (_, after_name) = stat.rsplit_once(')').expect("its form");
        let ticks: u64 =
            after_name.split_whitespace().skip(11).take(2).map(|n| n.parse::<u64>().expect("a number")).sum();
        ticks as f64 / 100.0
    }

    /// Its resident memory.
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("Linux");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    }
}
