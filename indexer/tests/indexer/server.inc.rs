/// A PostgreSQL server of its own in a temporary folder, from Debian's package or any other on the path. `None`, with a
/// line that says why: none is installed.
pub(crate) struct Server {
    child: std::process::Child,
    dir: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Option<Self> {
        let started = Self::try_start();
        if let Err(why) = &started {
            use std::io::Write as _;
            // Past the test harness, which keeps what the macros print.
            let _ = writeln!(
                std::io::stderr(),
                "skipped: no PostgreSQL server: {why}; Debian: apt-get install postgresql"
            );
        }
        started.ok()
    }

    fn programs() -> Result<PathBuf, String> {
        let folders = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
        let debian = folders.map(|folder| folder.path().join("bin"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut all: Vec<PathBuf> = debian.chain(std::env::split_paths(&path)).collect();
        all.sort_by_key(|folder| !folder.starts_with("/usr/lib/postgresql"));
        let complete = |folder: &PathBuf| folder.join("initdb").exists() && folder.join("postgres").exists();
        all.into_iter().find(complete).ok_or_else(|| "initdb and postgres are not installed".to_owned())
    }

    /// The server refuses root, so root becomes the user that Debian's package brings.
    fn command(program: &std::path::Path) -> Command {
        let is_root = Command::new("id").arg("-u").output().is_ok_and(|id| id.stdout == b"0\n");
        if !is_root {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
        command
    }

    fn try_start() -> Result<Self, String> {
        let programs = Self::programs()?;
        let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(dir.path(), open).map_err(|e| e.to_string())?;
        let data = dir.path().join("data");
        let made = Self::command(&programs.join("initdb"))
            .args(["--username=cohort", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .current_dir(dir.path())
            .output()
            .map_err(|e| e.to_string())?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into_owned());
        }
        let child = Self::command(&programs.join("postgres"))
            .arg("-D")
            .arg(&data)
            .args(["-c", "listen_addresses=", "-c", "fsync=off", "-k"])
            .arg(dir.path())
            .current_dir(dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        let server = Self { child, dir };
        for _ in 0..600 {
            if server.dir.path().join(".s.PGSQL.5432").exists()
                && std::os::unix::net::UnixStream::connect(server.dir.path().join(".s.PGSQL.5432")).is_ok()
                && std::fs::read_to_string(data.join("postmaster.pid")).is_ok_and(|pid| pid.contains("ready"))
            {
                return Ok(server);
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Err("it does not start".to_owned())
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://cohort@localhost/postgres?host={}", self.dir.path().display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGQUIT lets its children end with it; SIGKILL would leave them.
        let quit = Command::new("kill").args(["-QUIT", &self.child.id().to_string()]).status();
        drop((quit, self.child.wait()));
    }
}
