#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| turnkey::fuzzing::proxy_header(bytes));
