//! Any bytes as line protocol: no panic, every record counted (A2), no line counted twice, every row with its
//! id and times, and a bad record leaves nothing behind in the draft. The first byte is the precision.

#![no_main]

use ingest::decode::line_protocol::lines;
use ingest::decode::{Context, Decoded, IdSource, Limits, Precision};
use libfuzzer_sys::fuzz_target;
use storage::record::{Clean, Draft, Field, Kind};

const NOW_NS: i64 = 1_767_323_045_678_901_234;

fn decode(body: &[u8], precision: Precision, draft: &mut Draft) -> Option<Decoded> {
    // Small enough that a short input reaches each of them.
    let limits = Limits {
        records_max: 64,
        line_bytes_max: 256,
        attributes_max: 16,
        key_bytes_max: 32,
        ..Limits::default()
    };
    let mut ids = IdSource::default();
    let mut ctx = Context { now_ns: NOW_NS, oldest_ns: i64::MIN, limits: &limits, precision, ids: &mut ids };
    lines(body, &mut ctx, draft).ok()
}

fuzz_target!(|data: &[u8]| {
    let Some((first, body)) = data.split_first() else { return };
    let precision = [
        Precision::Auto,
        Precision::Nanosecond,
        Precision::Microsecond,
        Precision::Millisecond,
        Precision::Second,
        Precision::Minute,
        Precision::Hour,
    ][usize::from(*first) % 7];
    let mut draft = Draft::new(Kind::Events);
    let Some(decoded) = decode(body, precision, &mut draft) else {
        assert_eq!(draft.row_count(), 0, "nothing of a refused body stays");
        return;
    };
    assert_eq!(decoded.accepted as usize, draft.row_count());
    assert_eq!(decoded.rejected.len(), decoded.rejected_count.min(100) as usize);
    let lines_max = u32::try_from(body.split(|byte| *byte == b'\n').count()).expect("short inputs");
    assert!(decoded.accepted + decoded.rejected_count <= lines_max, "a line holds one record at most");
    for pair in decoded.rejected.windows(2) {
        assert!(pair[0].index < pair[1].index && pair[0].line < pair[1].line);
    }
    assert!(decoded.rejected.iter().all(|bad| bad.line.is_some_and(|line| line <= lines_max)));
    let rows = draft.row_count();
    for field in [Field::Id, Field::TimeNs, Field::ObservedNs, Field::Source, Field::EventType] {
        assert!((0..rows).all(|row| draft.column(field).is_set(row)), "{field:?} stands in each row");
    }
    // Closing the chunk checks UTF-8 and lengths of every column once more.
    assert_eq!(Clean::attest(&mut draft, 0).row_count(), rows);
    if decoded.rejected_count > 0 {
        // A bad record leaves nothing behind: the same draft takes the same body again.
        let again = decode(body, precision, &mut draft).expect("it was within limits before");
        assert_eq!((again.accepted, again.rejected_count), (decoded.accepted, decoded.rejected_count));
    }
});
