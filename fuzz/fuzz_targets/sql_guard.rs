//! No statement overflows the guard's stack or names a file as a table.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../query/src/plan/guard.rs"]
#[allow(dead_code)]
mod guard;

fuzz_target!(|data: &[u8]| {
    let Ok(sql) = std::str::from_utf8(data) else { return };
    let Ok(checked) = guard::check(sql) else { return };
    for name in &checked.tables {
        assert!(!name.contains(['/', ':', '\\']), "a path is no table");
    }
});
