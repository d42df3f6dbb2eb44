//! The `turnkey` command.
fn main() {}
