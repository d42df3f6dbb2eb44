#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| turnkey::fuzzing::dtls_hello(bytes));
