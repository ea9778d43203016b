//! No statement overflows the guard's stack, and what it lets through prints and parses as one query again.
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
    // Printing may need more brackets than were written, so only what is still within bounds is compared.
    if let Ok(again) = guard::check(&checked.query.to_string()) {
        assert_eq!(again.tables, checked.tables);
    }
});
