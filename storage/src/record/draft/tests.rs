use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;

use super::{Draft, Taken, Value};
use crate::record::{Field, Kind};

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
