#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fista_pruner_fuzz::run("chat_template", data));
