#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| passkit_fuzz::picture(input));
