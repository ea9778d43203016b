use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;

use super::keys::NEW_KEYS_MAX;
use super::{Draft, Taken, Value};
use crate::record::{Field, Kind, sparse};

fn row(draft: &mut Draft, write: impl FnOnce(&mut Draft)) {
    draft.begin_row();
    draft.set_int(Field::TimeNs, 1);
    write(draft);
    draft.end_row();
}

#[test]
fn a_rejected_row_leaves_nothing_behind() {
    let mut draft = Draft::new(Kind::Events);
    row(&mut draft, |d| _ = d.attribute("a", Value::Int(1)));
    draft.begin_row();
    draft.set_text(Field::Source, "gone");
    assert_eq!(draft.attribute("a", Value::Int(7)), Taken::New);
    assert_eq!(draft.attribute("b c", Value::Text("gone")), Taken::New);
    draft.abort_row();
    row(&mut draft, |d| _ = d.attribute("a", Value::Int(3)));
    let batch = draft.take();
    assert_eq!(batch.num_rows(), 2);
    assert_eq!(batch.column_by_name("a").unwrap().as_primitive::<Int64Type>().values(), &[1, 3]);
    assert!(batch.column_by_name("source").is_none_or(|c| c.null_count() == 2));
    assert!(batch.column_by_name("_overflow").is_none());
}

#[test]
fn what_fits_no_column_overflows_with_its_type() {
    let mut draft = Draft::new(Kind::Events);
    row(&mut draft, |d| {
        let _ = d.attribute("n", Value::Int(1));
        let _ = d.attribute("big", Value::Uint(u64::MAX));
        let _ = d.attribute("a b", Value::Double(2.0));
        let _ = d.attribute("source", Value::Text("named like a column"));
        let _ = d.attribute("Source", Value::Bool(true));
        let _ = d.attribute("N", Value::Int(9));
    });
    row(&mut draft, |d| _ = d.attribute("n", Value::Text("clash\"")));
    let batch = draft.take();
    let overflow = batch.column_by_name("_overflow").unwrap().as_string::<i32>();
    assert_eq!(overflow.value(0), r#"{"big":18446744073709551615,"a b":2.0,"Source":true,"N":9}"#);
    assert_eq!(overflow.value(1), r#"{"n":"clash\""}"#);
    assert_eq!(
        batch.column_by_name("attr.source").unwrap().as_string::<i32>().value(0),
        "named like a column"
    );
}

#[test]
fn the_last_of_a_duplicate_key_stands() {
    let mut draft = Draft::new(Kind::Events);
    row(&mut draft, |d| {
        assert_eq!(d.attribute("k", Value::Int(1)), Taken::New);
        assert_eq!(d.attribute("k", Value::Text("x")), Taken::Duplicate);
        assert_eq!(d.attribute("k", Value::Int(2)), Taken::Duplicate);
    });
    let batch = draft.take();
    assert_eq!(batch.column_by_name("k").unwrap().as_primitive::<Int64Type>().value(0), 2);
    assert!(batch.column_by_name("_overflow").is_none());
}

#[test]
fn masked_values_and_keys_move_to_the_overflow() {
    let mut draft = Draft::new(Kind::Events);
    for n in 0..3 {
        row(&mut draft, |d| {
            let _ = d.attribute("card", Value::Int(4_111_111_111_111_111 + n));
            let _ = d.attribute("bob@example.com", Value::Bool(true));
        });
    }
    draft.mask_attribute("card", &[(1, "[card]")]);
    draft.rename_attribute("bob@example.com", "[email]");
    let batch = draft.take();
    let overflow = batch.column_by_name("_overflow").unwrap().as_string::<i32>();
    assert_eq!(overflow.value(0), r#"{"[email]":true}"#);
    assert_eq!(overflow.value(1), r#"{"card":"[card]","[email]":true}"#);
    let card = batch.column_by_name("card").unwrap().as_primitive::<Int64Type>();
    assert!(card.is_null(1) && card.value(1) == 0 && card.value(2) == 4_111_111_111_111_113);
    assert!(batch.column_by_name("bob@example.com").is_none());
}

#[test]
fn a_draft_is_ready_for_the_next_chunk() {
    let mut draft = Draft::new(Kind::Events);
    row(&mut draft, |d| _ = d.attribute("k", Value::Int(1)));
    let _ = draft.take();
    row(&mut draft, |d| _ = d.attribute("k", Value::Text("another type")));
    let batch = draft.take();
    assert_eq!(batch.num_rows(), 1);
    assert_eq!(batch.column_by_name("k").unwrap().as_string::<i32>().value(0), "another type");
}

/// B1: a sender chooses its keys, so what a chunk remembers of them is bounded; nothing is dropped.
#[test]
fn distinct_keys_beyond_the_bound_are_not_remembered() {
    let mut draft = Draft::new(Kind::Events);
    let keys = 3 * 4_096;
    for at in 0..keys {
        row(&mut draft, |d| assert_eq!(d.attribute(&format!("key{at}"), Value::Int(7)), Taken::New));
    }
    assert_eq!(draft.attributes.len(), 4_096);
    assert!(draft.attributes.len() == draft.by_key.len() && draft.folded.len() <= 4_096);
    let batch = draft.take();
    assert_eq!(batch.num_rows(), keys);
    let overflow = batch.column_by_name("_overflow").unwrap().as_string::<i32>();
    assert_eq!(overflow.value(keys - 1), format!("{{\"key{}\":7}}", keys - 1));
    let values: usize = batch.columns().iter().skip(1).map(sparse::value_count).sum();
    assert_eq!(values, keys, "every value is in a column or in _overflow");
}

/// B1: odd keys of one body do not stay with the lane, and the next body's keys are columns again.
#[test]
fn a_lane_forgets_keys_past_its_bound() {
    let mut draft = Draft::new(Kind::Events);
    for round in 0..3 {
        for at in 0..NEW_KEYS_MAX - 1 {
            row(&mut draft, |d| _ = d.attribute(&format!("{round}-{at}"), Value::Int(7)));
        }
        let _ = draft.take();
        assert!(draft.attributes.len() <= 4_096, "{} keys", draft.attributes.len());
    }
    row(&mut draft, |d| _ = d.attribute("usual", Value::Int(1)));
    assert!(draft.take().column_by_name("usual").is_some());
}

#[test]
fn a_key_that_is_not_remembered_keeps_its_last_value_too() {
    let mut draft = Draft::new(Kind::Events);
    for at in 0..NEW_KEYS_MAX {
        row(&mut draft, |d| _ = d.attribute(&format!("key{at}"), Value::Int(7)));
    }
    row(&mut draft, |d| {
        assert_eq!(d.attribute("late", Value::Int(1)), Taken::New);
        assert_eq!(d.attribute("later", Value::Int(2)), Taken::New);
        assert_eq!(d.attribute("late", Value::Text("x")), Taken::Duplicate);
    });
    row(&mut draft, |d| assert_eq!(d.attribute("late", Value::Int(3)), Taken::New));
    let overflow = draft.overflow();
    assert_eq!(overflow.get(NEW_KEYS_MAX), Some(&br#"{"later":2,"late":"x"}"#[..]));
    assert_eq!(overflow.get(NEW_KEYS_MAX + 1), Some(&br#"{"late":3}"#[..]));
}

/// Many keys that are masked must not copy what `_overflow` holds once for each.
#[test]
fn renamed_and_masked_columns_join_the_overflow_in_one_pass() {
    let mut draft = Draft::new(Kind::Events);
    let rows = 2_000;
    for at in 0..rows {
        row(&mut draft, |d| {
            let _ = d.attribute("not a column", Value::Int(at));
            for key in 0..3 {
                let _ = d.attribute(&format!("k{key}"), Value::Int(i64::from(key)));
            }
            if at == 1_999 {
                let _ = d.attribute("rare", Value::Double(1.5));
            }
        });
    }
    draft.rename_attribute("k0", "a");
    draft.rename_attribute("rare", "r");
    draft.mask_attribute("k2", &[(1_999, "[card]")]);
    let overflow = draft.overflow_mut();
    assert_eq!(overflow.get(0), Some(&br#"{"not a column":0,"a":0}"#[..]));
    assert_eq!(overflow.get(1_999), Some(&br#"{"not a column":1999,"a":0,"r":1.5,"k2":"[card]"}"#[..]));
    let batch = draft.take();
    assert!(batch.column_by_name("rare").is_none() && batch.column_by_name("k0").is_none());
    assert!(batch.column_by_name("k2").unwrap().is_null(1_999));
}

/// A masked value of a sparse column is named by its place in the column, and masked in its row.
#[test]
fn a_value_of_a_sparse_column_is_masked_in_its_row() {
    let mut draft = Draft::new(Kind::Events);
    for at in 0..1_000 {
        row(&mut draft, |d| {
            if at == 0 || at == 900 {
                let _ = d.attribute("card", Value::Int(at));
            }
        });
    }
    assert_eq!(draft.attributes().next().unwrap().column.len(), 2);
    draft.mask_attribute("card", &[(1, "[card]")]);
    let batch = draft.take();
    let overflow = batch.column_by_name("_overflow").unwrap().as_string::<i32>();
    assert_eq!(overflow.value(900), r#"{"card":"[card]"}"#);
    let card = sparse::plain(batch.column_by_name("card").unwrap());
    assert_eq!(card.len() - card.null_count(), 1);
    assert_eq!(card.as_primitive::<Int64Type>().value(0), 0);
}

#[test]
fn a_row_taken_back_leaves_a_sparse_column_as_it_was() {
    let mut draft = Draft::new(Kind::Events);
    for at in 0..500 {
        row(&mut draft, |d| {
            if at % 200 == 0 {
                assert_eq!(d.attribute("k", Value::Int(at)), Taken::New);
                assert_eq!(d.attribute("k", Value::Int(at + 1)), Taken::Duplicate);
            }
        });
        draft.begin_row();
        let _ = draft.attribute("k", Value::Int(-1));
        draft.abort_row();
    }
    let batch = draft.take();
    let values = sparse::plain(batch.column_by_name("k").unwrap());
    let values = values.as_primitive::<Int64Type>();
    assert_eq!((values.value(0), values.value(200), values.value(400)), (1, 201, 401));
    assert_eq!(values.len() - values.null_count(), 3);
}

/// What a budget is charged for a draft is what it holds, for shapes that a sender would choose.
#[test]
fn held_bytes_grow_with_what_is_held() {
    let mut draft = Draft::new(Kind::Events);
    let before = draft.held_bytes();
    row(&mut draft, |d| _ = d.attribute("text", Value::Text(&"x".repeat(1 << 20))));
    assert!(draft.held_bytes() - before >= 1 << 20);
    let before = draft.held_bytes();
    row(&mut draft, |d| _ = d.attribute("not a name", Value::Text(&"x".repeat(1 << 20))));
    assert!(draft.held_bytes() - before >= 1 << 20);
    let before = draft.held_bytes();
    for at in 0..NEW_KEYS_MAX {
        row(&mut draft, |d| _ = d.attribute(&format!("{at}"), Value::Int(1)));
    }
    assert!(draft.held_bytes() - before >= NEW_KEYS_MAX * 400, "{}", draft.held_bytes() - before);
    draft.reset();
    assert!(draft.held_bytes() < 3 << 20);
}

/// A value that rows share is held, logged and kept once, whatever the rows are; a row taken back leaves no trace.
#[test]
fn a_value_that_rows_share_is_kept_once() {
    let (long, other) = ("r".repeat(1_000), "o".repeat(1_000));
    let mut draft = Draft::new(Kind::Logs);
    for at in 0..10_000 {
        let value = if at < 6_000 { &long } else { &other };
        row(&mut draft, |d| {
            if at != 3_000 {
                d.set_shared(Field::Resource, value.as_bytes());
            }
            d.set_shared(Field::ScopeName, b"lib");
        });
        draft.begin_row();
        draft.set_shared(Field::Resource, b"gone");
        draft.abort_row();
    }
    assert!(draft.held_bytes() < 10_000 * 200, "{}", draft.held_bytes());
    let batch = draft.take();
    let is_encoded =
        |name: &str| sparse::values_type(batch.column_by_name(name).expect(name).data_type()).is_some();
    assert!(is_encoded("resource") && !is_encoded("scope_name"));
    assert!(batch.get_array_memory_size() < 10_000 * 50);
    let resource = sparse::plain(batch.column_by_name("resource").unwrap());
    let resource = resource.as_string::<i32>();
    assert_eq!((resource.value(0), resource.value(5_999), resource.value(6_000)), (&*long, &*long, &*other));
    assert!(resource.is_null(3_000) && resource.null_count() == 1);
    assert_eq!(batch.column_by_name("scope_name").unwrap().as_string::<i32>().value(9_999), "lib");
}

/// What doubling left behind a long column's last value would be held as long as its chunk is.
#[test]
fn a_long_column_gives_its_spare_room_back() {
    let mut draft = Draft::new(Kind::Events);
    let rows = 70_000;
    for _ in 0..rows {
        row(&mut draft, |_| ());
    }
    let bytes = draft.take().get_array_memory_size();
    assert!(bytes < rows * 9, "{bytes} bytes for {rows} integers");
}

/// One odd row's overflow text is not kept by the lane.
#[test]
fn room_of_a_large_overflow_row_is_given_back() {
    let mut draft = Draft::new(Kind::Events);
    row(&mut draft, |d| _ = d.attribute("not a name", Value::Text(&"x".repeat(1 << 20))));
    let _ = draft.take();
    assert!(draft.held_bytes() < 128 << 10, "{}", draft.held_bytes());
}
