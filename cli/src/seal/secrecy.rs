//! What the operating system could keep of this process's memory.

use std::io;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

/// No core dump of this process holds keys or rows (`PR_SET_DUMPABLE`); nor may a process of the same user trace it.
pub fn forbid_core_dumps() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_not_dumpable_afterwards() {
        forbid_core_dumps().unwrap();
        assert_eq!(rustix::process::dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
