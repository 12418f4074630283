//! Benchmarks live in `benches/`. Of its own this crate has nothing but the project's README, so that the example there
//! is compiled, in a crate that is not published.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
