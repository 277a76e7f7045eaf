//! Steps at which tests end the process as `kill -9` does; nothing in a production build.

/// A step at which tests end the process as `kill -9` does.
#[cfg(feature = "dev")]
static KILL_AT: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Ends this process as `kill -9` does when a run gets to `step`: `released`, `signed`, `kept`, `posted` or `seen`.
#[cfg(feature = "dev")]
pub fn insecure_dev_kill_at(step: String) {
    let _ = KILL_AT.set(step);
}

/// Ends the process here if a test asked for it.
pub(super) fn kill_point(_step: &str) {
    #[cfg(feature = "dev")]
    if KILL_AT.get().is_some_and(|step| step == _step) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}
