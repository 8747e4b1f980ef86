//! Every chore of the project, as `cargo xtask` verbs.
fn main() {}
