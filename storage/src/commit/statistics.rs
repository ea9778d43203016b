//! What a table's log tells others of a file, so that a reader need not open those that hold nothing it asks for.

use serde_json::{Map, Value, json};

use crate::reader::DataFile;
use crate::record::schema;

/// The counts of nulls, which stand in a file's own footer as well: the log has those of the columns whose bounds it has,
/// of which there are none.
const NULLS: &str = "nullCount";

/// The statistics of a file that this engine wrote, as Delta keeps them: they follow from what is known of it.
pub fn json(file: &DataFile) -> String {
    value(file).to_string()
}

/// Whether these say more of a file than what is known of it. Counts of nulls aside: an older build wrote those of every
/// column, half of what a log of many columns held.
pub fn say_more(mut statistics: Value, file: &DataFile) -> bool {
    let mut own = value(file);
    for statistics in [&mut statistics, &mut own] {
        statistics.as_object_mut().map(|fields| fields.remove(NULLS));
    }
    statistics != own
}

fn value(file: &DataFile) -> Value {
    let (first, last) = file.time_ns;
    let low = (timestamp(first), first, file.source.as_ref().map(|(low, _)| low));
    // Delta keeps timestamps in statistics at millisecond precision: the maximum is rounded up, so that a reader that
    // skips by it never skips a row.
    let high = (timestamp(last.saturating_add(999_999)), last, file.source.as_ref().map(|(_, high)| high));
    let [low, high] = [low, high].map(|(time, time_ns, source)| {
        let mut bounds =
            Map::from_iter([("time_ns".into(), time_ns.into()), (schema::TIME.into(), time.into())]);
        bounds.extend(source.map(|source| ("source".into(), source.as_str().into())));
        bounds
    });
    let nulls: Map<String, Value> = low.keys().map(|column| (column.clone(), 0.into())).collect();
    json!({"numRecords": file.rows, "minValues": low, "maxValues": high, NULLS: nulls})
}

fn timestamp(ns: i64) -> String {
    let at =
        jiff::Timestamp::from_millisecond(ns.div_euclid(1_000_000)).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::say_more;
    use crate::commit::conformance::tables::file;
    use crate::reader::DataFile;

    fn check(source: Option<(&str, &str)>, expected: &str) {
        let source = source.map(|(low, high)| (low.to_owned(), high.to_owned()));
        let file = DataFile { rows: 7, time_ns: (1_999_999, 2_000_001), source, ..file() };
        assert_eq!(super::json(&file), expected);
    }

    #[test]
    fn bounds_are_told_in_the_protocols_precision() {
        check(
            None,
            r#"{"numRecords":7,"minValues":{"time_ns":1999999,"time":"1970-01-01T00:00:00.001Z"},"maxValues":{"time_ns":2000001,"time":"1970-01-01T00:00:00.003Z"},"nullCount":{"time_ns":0,"time":0}}"#,
        );
        check(
            Some(("a", "b")),
            r#"{"numRecords":7,"minValues":{"time_ns":1999999,"time":"1970-01-01T00:00:00.001Z","source":"a"},"maxValues":{"time_ns":2000001,"time":"1970-01-01T00:00:00.003Z","source":"b"},"nullCount":{"time_ns":0,"time":0,"source":0}}"#,
        );
    }

    /// What follows from a file is not kept beside it; what another program said is.
    #[test]
    fn what_others_said_is_more() {
        let file = file();
        let own = || super::value(&file);
        assert!(!say_more(own(), &file));
        let check = |change: &dyn Fn(&mut serde_json::Value), expected| {
            let mut statistics = own();
            change(&mut statistics);
            assert_eq!(say_more(statistics.clone(), &file), expected, "{statistics}");
        };
        check(&|all| all["nullCount"]["attr.a"] = 1.into(), false);
        check(&|all| drop(all.as_object_mut().unwrap().remove("nullCount")), false);
        check(&|all| all["maxValues"]["attr.a"] = "z".into(), true);
        check(&|all| drop(all["minValues"].as_object_mut().unwrap().remove("time")), true);
        check(&|all| all["tightBounds"] = json!(false), true);
        assert!(say_more(json!({"numRecords": 1}), &file));
    }
}
