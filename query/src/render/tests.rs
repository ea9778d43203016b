use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Float64Array, Int64Array, ListArray, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};

use super::{Format, column_names, format};

fn batch() -> RecordBatch {
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("i", Arc::new(Int64Array::from(vec![Some(i64::MAX), None]))),
        ("d", Arc::new(Float64Array::from(vec![1.0, f64::NAN]))),
        ("t", Arc::new(StringArray::from(vec!["=1+1", "a\"b,c\n"]))),
        ("b", Arc::new(BooleanArray::from(vec![true, false]))),
        ("raw", Arc::new(BinaryArray::from_vec(vec![&[1, 2][..], &[][..]]))),
        ("ts", Arc::new(TimestampMicrosecondArray::from(vec![1_500_000, 0]).with_timezone("UTC"))),
        ("n", Arc::new(Decimal128Array::from(vec![150, -5]).with_precision_and_scale(5, 2).unwrap())),
        ("l", Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None]))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn text(accept: &str) -> (String, &'static str) {
    let batch = batch();
    let mut format = format(Some(accept), &batch.schema()).unwrap().expect("a streamed format");
    let mut out = Vec::new();
    format.begin(&mut out).unwrap();
    format.rows(&mut out, &batch).unwrap();
    format.end(&mut out).unwrap();
    (String::from_utf8_lossy(&out).into_owned(), format.content_type())
}

#[test]
fn json_keeps_types_exactly() {
    let (lines, content_type) = text("application/x-ndjson");
    assert_eq!(content_type, "application/x-ndjson");
    assert_eq!(
        lines,
        concat!(
            r#"{"i":9223372036854775807,"d":1.0,"t":"=1+1","b":true,"raw":{"$bytes":"AQI="},"ts":"1970-01-01T00:00:01.5Z","n":1.50,"l":[1,null]}"#,
            "\n",
            r#"{"i":null,"d":null,"t":"a\"b,c\n","b":false,"raw":{"$bytes":""},"ts":"1970-01-01T00:00:00Z","n":-0.05,"l":null}"#,
            "\n"
        )
    );
}

#[test]
fn csv_quotes_and_disarms() {
    let (lines, _) = text("text/csv");
    assert_eq!(
        lines,
        "i,d,t,b,raw,ts,n,l\r\n9223372036854775807,1.0,'=1+1,true,AQI=,1970-01-01T00:00:01.5Z,1.50,\"[1,null]\"\r\n,,\"a\"\"b,c\n\",false,\"\",1970-01-01T00:00:00Z,-0.05,\r\n"
    );
}

/// A text that a spreadsheet could take for a formula is quoted, whatever it skips before it; a number stays one.
#[test]
fn no_cell_is_a_formula() {
    for (cell, expected) in [
        ("=1+1", "'=1+1"),
        ("+cmd", "'+cmd"),
        ("-1+1", "'-1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "\"'\r=1\""),
        ("\n=1+1", "\"'\n=1+1\""),
        ("\r\n=1", "\"'\r\n=1\""),
        ("＝1", "'＝1"),
        ("-inf", "'-inf"),
        ("-5", "-5"),
        ("+1.5e-3", "+1.5e-3"),
        ("a=1", "a=1"),
    ] {
        let column: ArrayRef = Arc::new(StringArray::from(vec![cell]));
        let batch = RecordBatch::try_from_iter([("t", column)]).unwrap();
        let mut format = format(Some("text/csv"), &batch.schema()).unwrap().expect("a streamed format");
        let mut out = Vec::new();
        format.rows(&mut out, &batch).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), format!("{expected}\r\n"), "{cell:?}");
    }
}

#[test]
fn arrow_streams_read_back() {
    let batch = batch();
    let mut encoder = super::arrow_stream::Encoder::new(&batch.schema()).unwrap();
    let mut out = Vec::new();
    encoder.write(&mut out, &batch).unwrap();
    encoder.write(&mut out, &batch).unwrap();
    encoder.finish(&mut out).unwrap();
    let read: Vec<_> =
        arrow::ipc::reader::StreamReader::try_new(&out[..], None).unwrap().collect::<Result<_, _>>().unwrap();
    assert_eq!(read.len(), 2);
    assert_eq!(read[1].num_rows(), 2);
}

#[test]
fn the_first_known_media_type_decides() {
    let schema = batch().schema();
    let name = |accept: &str| format(Some(accept), &schema).unwrap().map(|format| format.content_type());
    assert_eq!(name("*/*"), None);
    assert_eq!(name("application/json"), None);
    assert_eq!(name("image/png"), None);
    assert_eq!(name("text/html, TEXT/CSV;q=0.5"), Some("text/csv; charset=utf-8"));
    assert_eq!(name("text/csv;q=0, application/x-ndjson"), Some("application/x-ndjson"));
    assert!(matches!(
        format(Some("application/vnd.apache.arrow.stream"), &schema),
        Ok(Some(Format::Arrow(_)))
    ));
}

#[test]
fn names_are_unique() {
    let schema =
        Schema::new(["id", "id", "id_2", "id"].map(|name| Field::new(name, DataType::Null, true)).to_vec());
    assert_eq!(column_names(&schema), ["id", "id_2", "id_2_2", "id_3"]);
}
