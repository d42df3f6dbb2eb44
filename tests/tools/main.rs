//! The program's own tools against the running program, and the client of the `turn` crate as a
//! foreign judge of the relay. Every failure that `check` and `bench` explain is provoked.

mod bench;
mod check;
#[cfg(target_os = "linux")]
mod floor;
mod foreign;
mod rig;
