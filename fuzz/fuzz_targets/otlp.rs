#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lizmon_fuzz::decoders::otlp(bytes));
