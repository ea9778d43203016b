use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int64Type};

use super::{Columns, Coordinates, to_rows, written_out_bytes};
use crate::record::{Draft, Field, Kind, Type, Value, schema, sparse};

const AT: Coordinates<'_> = Coordinates { writer: "w", first_seq: 5 };

/// A chunk of `rows` rows; `write` gives each its attributes.
fn chunk(rows: usize, mut write: impl FnMut(usize, &mut Draft)) -> RecordBatch {
    let mut draft = Draft::new(Kind::Events);
    for row in 0..rows {
        draft.begin_row();
        draft.set_int(Field::TimeNs, 1);
        draft.set_int(Field::ObservedNs, 1);
        write(row, &mut draft);
        draft.end_row();
    }
    draft.take()
}

/// The column as the rows of a table hold it.
fn rows_of(batch: &RecordBatch, columns: &Columns) -> RecordBatch {
    to_rows(batch, columns.schema(), AT)
}

fn is_sparse(batch: &RecordBatch, name: &str) -> bool {
    sparse::values_type(batch.column_by_name(name).expect(name).data_type()).is_some()
}

#[test]
fn a_column_that_few_rows_fill_costs_what_its_values_cost() {
    let rows = 20_000;
    let batch = chunk(rows, |row, draft| {
        for key in 0..100 {
            if row == key * 7 {
                let _ = draft.attribute(&format!("k{key}"), Value::Int(42));
            }
        }
    });
    let bare = chunk(rows, |_, _| ()).get_array_memory_size();
    assert_eq!(batch.num_columns(), 102, "nothing is in _overflow");
    let bytes = batch.get_array_memory_size() - bare;
    assert!(bytes < 100 * 1_000, "100 values take {bytes} bytes");
    assert!(schema::is_chunk(Kind::Events, &batch));
    assert!(written_out_bytes(&batch) >= 100 * rows * 8);
}

#[test]
fn a_sparse_column_of_any_type_reads_back_row_by_row() {
    let rows = 1_000;
    let values: Vec<(&str, Value<'_>)> = vec![
        ("text", Value::Text("t")),
        ("int", Value::Int(-7)),
        ("double", Value::Double(0.5)),
        ("bool", Value::Bool(true)),
        ("bytes", Value::Bytes(b"\0\xff")),
        ("json", Value::Json("[1]")),
    ];
    // The last row alone, the first alone, neighbours, and a column that was dense at first.
    for picked in [vec![rows - 1], vec![0], vec![3, 4, 700], (0..80).chain([990]).collect::<Vec<_>>()] {
        let batch = chunk(rows, |row, draft| {
            for (key, value) in values.iter().filter(|_| picked.contains(&row)) {
                let _ = draft.attribute(key, *value);
            }
        });
        let (batch, added) = Columns::new(Kind::Events).fit(batch);
        let columns = Columns::with_attributes(Kind::Events, added);
        assert_eq!(columns.attributes().len(), 6);
        assert_eq!(columns.attributes()[5], ("json".to_owned(), Type::Json));
        for (key, _) in &values {
            assert!(is_sparse(&batch, key), "{key} of {} rows", picked.len());
        }
        let table = rows_of(&batch, &columns);
        for row in 0..rows {
            let is_set = picked.contains(&row);
            for (key, _) in &values {
                assert_eq!(table.column_by_name(key).unwrap().is_valid(row), is_set, "{key} in {row}");
            }
        }
        let row = picked[0];
        let column = |name: &str| table.column_by_name(name).unwrap();
        assert_eq!(column("text").as_string::<i32>().value(row), "t");
        assert_eq!(column("int").as_primitive::<Int64Type>().value(row), -7);
        assert!((column("double").as_primitive::<Float64Type>().value(row) - 0.5).abs() < f64::EPSILON);
        assert!(column("bool").as_boolean().value(row));
        assert_eq!(column("bytes").as_binary::<i32>().value(row), b"\0\xff");
        assert_eq!(column("json").as_string::<i32>().value(row), "[1]");
    }
}

#[test]
fn a_column_becomes_plain_again_where_its_rows_fill_up() {
    let batch = chunk(400, |row, draft| {
        if row == 0 || row >= 200 {
            let _ = draft.attribute("k", Value::Int(i64::try_from(row).unwrap()));
        }
    });
    assert!(!is_sparse(&batch, "k"));
    let values = batch.column_by_name("k").unwrap().as_primitive::<Int64Type>();
    assert!(values.is_valid(0) && values.is_null(1) && values.is_null(199));
    assert_eq!((200..400).map(|row| values.value(row)).sum::<i64>(), (200..400).sum::<i64>());
}

/// B1: rows times columns is bounded before anything of that size exists, and nothing is dropped.
#[test]
fn more_cells_than_the_bound_go_to_the_overflow_rarest_first() {
    let rows = 100_000;
    let columns_max = (2 << 20) / rows;
    let batch = chunk(rows, |row, draft| {
        for key in 0..300 {
            // The last key has two values, so it is not the rarest.
            if row == 10 || (key == 299 && row == 50_000) {
                let _ = draft.attribute(&format!("k{key}"), Value::Int(7));
            }
        }
    });
    let sparse = batch.schema_ref().fields().iter().filter(|f| f.name().starts_with('k')).count();
    assert_eq!(sparse, columns_max);
    assert!(is_sparse(&batch, "k299") && is_sparse(&batch, "k0"));
    let overflow = batch.column_by_name("_overflow").unwrap().as_string::<i32>();
    assert_eq!(overflow.len() - overflow.null_count(), 1);
    let object = overflow.value(10);
    assert_eq!(object.matches(":7").count(), 300 - columns_max);
    assert!(object.contains(r#""k298":7"#) && !object.contains(r#""k0":7"#));
    let bytes = batch.get_array_memory_size();
    assert!(bytes < rows * 40, "{bytes} bytes for rows of two bytes each");
}

#[test]
fn a_sparse_column_that_clashes_moves_to_the_overflow() {
    let batch = chunk(10_000, |row, draft| {
        if row == 9_000 {
            let _ = draft.attribute("n", Value::Text("a\"b"));
            let _ = draft.attribute("odd key", Value::Bool(true));
        }
    });
    let columns = Columns::with_attributes(Kind::Events, vec![("n".into(), Type::Int)]);
    let (fitted, added) = columns.fit(batch);
    assert!(added.is_empty() && fitted.column_by_name("n").is_none());
    let overflow = fitted.column_by_name("_overflow").unwrap().as_string::<i32>();
    assert_eq!(overflow.value(9_000), r#"{"odd key":true,"n":"a\"b"}"#);
    assert_eq!(overflow.len() - overflow.null_count(), 1);
}

#[test]
fn a_dataset_has_no_more_columns_than_its_bound() {
    let batch = chunk(1, |_, draft| {
        for key in 0..512 {
            let _ = draft.attribute(&format!("b{key}"), Value::Int(1));
        }
    });
    let columns = Columns::with_attributes(Kind::Events, vec![("a".into(), Type::Int)]);
    let (fitted, added) = columns.fit(batch);
    assert_eq!(added.len(), 511);
    let overflow = fitted.column_by_name("_overflow").unwrap().as_string::<i32>();
    assert_eq!(overflow.value(0), format!("{{\"b{}\":1}}", 511));
}

#[test]
fn columns_that_a_chunk_lacks_share_their_nulls() {
    let attributes: Vec<_> = (0..512).map(|key| (format!("k{key}"), Type::Int)).collect();
    let columns = Columns::with_attributes(Kind::Events, attributes);
    let rows = rows_of(&chunk(10_000, |_, _| ()), &columns);
    let (first, last) = (rows.column_by_name("k0").unwrap(), rows.column_by_name("k511").unwrap());
    assert!(std::ptr::addr_eq(std::sync::Arc::as_ptr(first), std::sync::Arc::as_ptr(last)));
    assert_eq!(first.null_count(), 10_000);
}
