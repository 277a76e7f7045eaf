//! The last question before something is signed or sent.

use std::io::{IsTerminal, Write};

use crate::failure::{Failure, Outcome};

/// For an approval: without a terminal only `--yes` will do.
pub(super) fn require(yes: bool, verb: &str) -> Outcome {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        return Err(Failure::input(
            format!("will not {verb} without a yes"),
            "answer on a terminal, or give --yes",
        ));
    }
    ask(verb)
}

/// For stopping, which must not wait: asked only where somebody can answer.
pub(super) fn offer(yes: bool, verb: &str) -> Outcome {
    if yes || !std::io::stdin().is_terminal() {
        return Ok(());
    }
    ask(verb)
}

fn ask(verb: &str) -> Outcome {
    eprint!("{verb} this? [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|e| Failure::input(e, "answer y or n"))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(Failure::refused("nothing was signed", "read it again, then decide"))
}
