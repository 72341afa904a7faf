#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    pve_diff_backup_fuzz::look::tar(data);
});
