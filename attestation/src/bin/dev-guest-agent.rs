//! Stand-in for the dstack guest agent.
fn main() {}
