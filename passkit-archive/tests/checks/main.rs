//! Every rule has an archive that breaks it and is otherwise good, and good archives are silent.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, unreachable_pub, reason = "other tests use the rest of it")]
#[path = "../authority/mod.rs"]
mod authority;
mod cases;
mod good;
mod hostile;
mod openssl;
mod samples;
mod table;
#[allow(unreachable_pub, reason = "other tests use it too")]
#[path = "../zips/mod.rs"]
mod zips;
