//! Rows of several chunks in the order of a segment, without a copy of them beside the chunks.
//!
//! What is sorted are places; rows are gathered from their chunks a batch at a time, as a file takes them. A column
//! that a chunk does not have costs nothing, and one that is run-end encoded stays so: what a seal takes in memory
//! is a batch, a file, and some bytes a row, whatever the chunks hold (B1).

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray, UInt32Array,
    new_null_array,
};
use arrow::compute::{SortColumn, concat, interleave, lexsort_to_indices};
use arrow::datatypes::{DataType, Int64Type, SchemaRef, TimestampMicrosecondType};
use arrow::error::ArrowError;

use super::dates::day_of;
use super::input::{CELL_BYTES, Input, Values, is_made, values, weights};
use crate::record::{Kind, schema, sparse};
use crate::segment;

/// Rows in one batch at most. Chosen: what a reader decodes at a time.
const BATCH_ROWS: usize = 8 * 1024;

/// Bytes in one batch at most, but for a row that is larger alone.
pub const BATCH_BYTES: u64 = 1 << 20;

/// What a row takes beside its values: its place, three times, and its weight.
const ROW_BYTES: u64 = 32;

/// Rows of some inputs by date, those of a date in the order of a segment.
#[derive(Debug)]
pub struct Sorted {
    schema: SchemaRef,
    inputs: Vec<Input>,
    /// The number of each input's first row among all.
    starts: Vec<u32>,
    /// Bytes of each row.
    weights: Vec<u32>,
    /// Rows of each day, by number.
    days: Vec<(i64, Vec<u32>)>,
    /// Columns of the table that no input has.
    absent: usize,
    /// The place of each column in the table.
    columns: HashMap<String, usize>,
    /// Of each column, whether every row has it by its kind.
    always: Vec<bool>,
    /// Of each column, bytes of its values.
    values: Vec<u64>,
}

/// Some rows of one date that become a file.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The day, in days since 1970.
    pub day: i64,
    /// Their bytes in memory.
    pub bytes: u64,
    at: usize,
    rows: Range<usize>,
}

/// Memory that sorting such inputs takes, in bytes.
pub fn sort_bytes(kind: Kind, inputs: &[Input]) -> u64 {
    let rows: u64 = inputs.iter().map(|input| input.batch.num_rows() as u64).sum();
    // One input's columns are sorted where they stand.
    let is_copied = inputs.len() > 1;
    let keys = segment::order(kind).iter().filter(|_| is_copied);
    let of_input = |name: &str, input: &Input| {
        let column = input.batch.column_by_name(name);
        column.map_or(0, |column| column.to_data().get_slice_memory_size().unwrap_or(0))
    };
    let keys: usize = keys.map(|name| inputs.iter().map(|input| of_input(name, input)).sum::<usize>()).sum();
    rows * ROW_BYTES + keys as u64
}

impl Sorted {
    /// Sorts inputs of fewer than 2^32 rows, those of up to `last_day`.
    ///
    /// # Errors
    /// Where a column is not of its table's type.
    pub fn new(
        kind: Kind,
        schema: &SchemaRef,
        inputs: Vec<Input>,
        last_day: Option<i64>,
    ) -> Result<Self, ArrowError> {
        let mut starts = Vec::with_capacity(inputs.len());
        let mut row_count = 0;
        for input in &inputs {
            starts.push(row_count);
            row_count += u32::try_from(input.batch.num_rows()).expect("a chunk has fewer than 2^32 rows");
        }
        let mut days_of_rows = Vec::with_capacity(row_count as usize);
        for input in &inputs {
            let times = times(&input.batch, "time_ns");
            // What is not asked for is in no day.
            let day = |time_ns: &i64| {
                let day = day_of(*time_ns);
                let is_asked = input.after_day.is_none_or(|after| day > after)
                    && last_day.is_none_or(|last_day| day <= last_day);
                is_asked.then_some(day)
            };
            days_of_rows.extend(times.values().iter().map(day));
        }
        let mut days: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        for row in order(kind, schema, &inputs)?.values() {
            if let Some(day) = days_of_rows[*row as usize] {
                days.entry(day).or_default().push(*row);
            }
        }
        let named = schema.fields().iter().zip(0..).map(|(field, at)| (field.name().clone(), at));
        let columns: HashMap<String, usize> = named.collect();
        let mut has: Vec<bool> = schema.fields().iter().map(|field| is_made(field.name())).collect();
        for field in inputs.iter().flat_map(|input| input.batch.schema_ref().fields()) {
            if let Some(at) = columns.get(field.name()) {
                has[*at] = true;
            }
        }
        let values = values(schema, &inputs);
        let absent = has.iter().filter(|has| !**has).count();
        let is_fixed = |name: &str| is_made(name) || kind.fields().iter().any(|field| field.name() == name);
        let always = schema.fields().iter().map(|field| is_fixed(field.name())).collect();
        let weights = weights(schema.fields().len() - absent, &inputs, row_count as usize);
        let days = days.into_iter().collect();
        Ok(Self {
            schema: Arc::clone(schema),
            inputs,
            starts,
            weights,
            days,
            absent,
            columns,
            always,
            values,
        })
    }

    /// The rows of each date in pieces of at most `bytes_max`, but for a row that is larger alone.
    pub fn pieces(&self, bytes_max: u64) -> Vec<Piece> {
        let mut pieces = Vec::new();
        for (at, (day, rows)) in self.days.iter().enumerate() {
            let ranges = self.cut(rows, bytes_max, usize::MAX);
            pieces.extend(ranges.map(|(rows, bytes)| Piece { day: *day, bytes, at, rows }));
        }
        pieces
    }

    /// Cuts rows into runs that are within both bounds.
    fn cut<'a>(
        &'a self,
        rows: &'a [u32],
        bytes_max: u64,
        rows_max: usize,
    ) -> impl Iterator<Item = (Range<usize>, u64)> + 'a {
        let mut from = 0;
        std::iter::from_fn(move || {
            let mut bytes = 0;
            let fitting = rows.get(from..)?.iter().take(rows_max).take_while(|row| {
                let weight = u64::from(self.weights[**row as usize]);
                let fits = bytes == 0 || bytes + weight <= bytes_max;
                bytes += if fits { weight } else { 0 };
                fits
            });
            let range = from..from + fitting.count();
            from = range.end;
            (!range.is_empty()).then_some((range, bytes))
        })
    }

    /// The places of the columns that a file of these rows needs: those that a chunk of theirs has, and those that
    /// every row has by its kind.
    pub fn columns_of(&self, piece: &Piece) -> Vec<usize> {
        let mut has = self.always.clone();
        for input in used(&self.places(self.rows(piece))) {
            for field in self.inputs[input].batch.schema_ref().fields() {
                if let Some(at) = self.columns.get(field.name()) {
                    has[*at] = true;
                }
            }
        }
        (0..has.len()).filter(|at| has[*at]).collect()
    }

    /// The rows of a piece in these columns of the table, batch by batch.
    pub fn batches<'a>(
        &'a self,
        piece: &'a Piece,
        columns: &'a [usize],
    ) -> impl Iterator<Item = Result<RecordBatch, ArrowError>> + 'a {
        let rows = self.rows(piece);
        // Columns that no row has a value in are nulls of eight bytes in a batch, and nothing in a file.
        let absent = u64::from(CELL_BYTES) * self.absent as u64;
        let rows_max =
            usize::try_from(BATCH_BYTES / absent.max(1)).unwrap_or(BATCH_ROWS).clamp(1, BATCH_ROWS);
        self.cut(rows, BATCH_BYTES, rows_max).map(|(range, _)| self.gather(&rows[range], columns))
    }

    fn rows(&self, piece: &Piece) -> &[u32] {
        &self.days[piece.at].1[piece.rows.clone()]
    }

    /// The input and the row in it of each row.
    fn places(&self, rows: &[u32]) -> Vec<(usize, usize)> {
        let place = |row: &u32| {
            let input = self.starts.partition_point(|start| start <= row) - 1;
            (input, (row - self.starts[input]) as usize)
        };
        rows.iter().map(place).collect()
    }

    /// Rows of a piece.
    pub fn row_count(&self, piece: &Piece) -> u64 {
        piece.rows.len() as u64
    }

    /// Whether every row has that column by its kind.
    pub fn is_fixed(&self, at: usize) -> bool {
        self.always[at]
    }

    /// Bytes of the values of a column of the table in a piece, about, by the average of all rows; 0 where no row of any
    /// piece has one.
    pub fn value_bytes(&self, at: usize, piece: &Piece) -> u64 {
        let rows = self.weights.len().max(1) as u128;
        let bytes = u128::from(self.values[at]) * piece.rows.len() as u128;
        u64::try_from(bytes.div_ceil(rows)).unwrap_or(u64::MAX)
    }

    /// What the encoders of a file of these rows hold, beside its pages.
    pub fn encoder_bytes(&self, piece: &Piece, columns: &[usize]) -> u64 {
        columns.iter().map(|at| segment::encoder_bytes(self.value_bytes(*at, piece))).sum()
    }

    /// The place of a column of the table.
    pub fn place(&self, name: &str) -> usize {
        self.columns[name]
    }

    /// The columns of the table.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn gather(&self, rows: &[u32], columns: &[usize]) -> Result<RecordBatch, ArrowError> {
        let mut places = self.places(rows);
        let inputs: Vec<&Input> = used(&places).into_iter().map(|input| &self.inputs[input]).collect();
        // From here on by their numbers among the inputs that these rows are of: a row of a date is of one of many.
        renumber(&mut places);
        // Whose columns they are, looked up once each: by name among hundreds it would be most of the work.
        let mut sources: HashMap<usize, Vec<(usize, &ArrayRef)>> = HashMap::new();
        for (input, batch) in inputs.iter().map(|input| &input.batch).enumerate() {
            for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
                if let Some(at) = self.columns.get(field.name()) {
                    sources.entry(*at).or_default().push((input, column));
                }
            }
        }
        let schema = Arc::new(self.schema.project(columns)?);
        let gathered = schema.fields().iter().zip(columns).map(|(field, at)| match field.name().as_str() {
            schema::TIME => microseconds("time_ns", &inputs, &places),
            schema::OBSERVED_TIME => microseconds("observed_time_ns", &inputs, &places),
            schema::WRITER => {
                let writers = places.iter().map(|(input, _)| &*inputs[*input].writer);
                Ok(Arc::new(StringArray::from_iter_values(writers)) as ArrayRef)
            }
            schema::SEQ => {
                let seq = |(input, row): &(usize, usize)| inputs[*input].seq(*row);
                Ok(Arc::new(Int64Array::from_iter_values(places.iter().map(seq))) as ArrayRef)
            }
            _ => column(field.data_type(), sources.get(at).map_or(&[], Vec::as_slice), inputs.len(), &places),
        });
        let gathered = gathered.collect::<Result<Vec<_>, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(schema, gathered, &options)
    }
}

/// The inputs that rows at these places are of, each once, in their order.
fn used(places: &[(usize, usize)]) -> Vec<usize> {
    let mut inputs: Vec<usize> = places.iter().map(|(input, _)| *input).collect();
    inputs.sort_unstable();
    inputs.dedup();
    inputs
}

/// Numbers the inputs anew, without those that no row is of.
fn renumber(places: &mut [(usize, usize)]) {
    let inputs = used(places);
    for (input, _) in places {
        *input = inputs.binary_search(input).expect("every place's input is used");
    }
}

fn microseconds(name: &str, inputs: &[&Input], places: &[(usize, usize)]) -> Result<ArrayRef, ArrowError> {
    let find =
        |input: &&'_ Input| input.batch.column_by_name(name).expect("every chunk has its times").clone();
    let times: Vec<ArrayRef> = inputs.iter().map(find).collect();
    let sources: Vec<(usize, &ArrayRef)> = times.iter().enumerate().collect();
    let ns = column(&DataType::Int64, &sources, inputs.len(), places)?;
    let us: Int64Array = ns.as_primitive::<Int64Type>().unary(|ns| ns.div_euclid(1_000));
    Ok(Arc::new(us.reinterpret_cast::<TimestampMicrosecondType>().with_timezone("UTC")))
}

/// The values of one column at those places, from the inputs that have it.
fn column(
    r#type: &DataType,
    found: &[(usize, &ArrayRef)],
    inputs: usize,
    places: &[(usize, usize)],
) -> Result<ArrayRef, ArrowError> {
    if found.is_empty() {
        return Ok(new_null_array(r#type, places.len()));
    }
    let mut sources: Vec<Values<'_>> = (0..inputs).map(|_| Values::None).collect();
    for (input, column) in found {
        sources[*input] = Values::of(Some(column));
    }
    let null = new_null_array(r#type, 1);
    let arrays: Vec<&dyn Array> = sources
        .iter()
        .map(|source| match source {
            Values::None => &*null,
            Values::Plain(array) => &***array,
            Values::Runs(runs) => &**runs.values(),
        })
        .collect();
    if sources.iter().all(|source| matches!(source, Values::Plain(_))) {
        return interleave(&arrays, places);
    }
    let places: Vec<(usize, usize)> = places
        .iter()
        .map(|(input, row)| match sources[*input] {
            Values::None => (*input, 0),
            Values::Plain(_) => (*input, *row),
            Values::Runs(runs) => (*input, runs.get_physical_index(*row)),
        })
        .collect();
    interleave(&arrays, &places)
}

fn times<'a>(batch: &'a RecordBatch, name: &str) -> &'a Int64Array {
    batch.column_by_name(name).expect("every chunk has its times").as_primitive::<Int64Type>()
}

/// The rows of all inputs in the order of a segment.
fn order(kind: Kind, schema: &SchemaRef, inputs: &[Input]) -> Result<UInt32Array, ArrowError> {
    let mut columns: Vec<SortColumn> = Vec::new();
    let mut sort_by = |values: ArrayRef| {
        columns.push(SortColumn { values, options: Some(segment::OPTIONS) });
    };
    for name in segment::order(kind) {
        let r#type = schema.field_with_name(name)?.data_type();
        let parts: Vec<ArrayRef> = inputs
            .iter()
            .map(|input| match input.batch.column_by_name(name) {
                Some(column) => sparse::plain(column),
                None => new_null_array(r#type, input.batch.num_rows()),
            })
            .collect();
        sort_by(concat(&parts.iter().map(|part| &**part).collect::<Vec<_>>())?);
    }
    // Writers by their rank: what compares as their names do, in four bytes.
    let mut writers: Vec<&str> = inputs.iter().map(|input| &*input.writer).collect();
    writers.sort_unstable();
    writers.dedup();
    if writers.len() > 1 {
        let rank = |input: &Input| writers.binary_search(&&*input.writer).unwrap_or(0);
        let ranks = inputs.iter().flat_map(|input| {
            let rank = u32::try_from(rank(input)).expect("fewer than 2^32 logs");
            std::iter::repeat_n(rank, input.batch.num_rows())
        });
        sort_by(Arc::new(UInt32Array::from_iter_values(ranks)));
    }
    let seqs = inputs.iter().flat_map(|input| (0..input.batch.num_rows()).map(|row| input.seq(row)));
    sort_by(Arc::new(Int64Array::from_iter_values(seqs)));
    lexsort_to_indices(&columns, None)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use arrow::array::RecordBatch;
    use arrow::compute::concat_batches;

    use super::{BATCH_BYTES, Input, Sorted};
    use crate::record::fit::{Columns, Coordinates, to_rows};
    use crate::record::{Clean, Draft, Field, Kind, Value};
    use crate::seal::dates::day_of;
    use crate::segment::Fingerprint;

    const DAY_NS: i64 = 86_400_000_000_000;

    fn chunk(rows: std::ops::Range<i64>, shape: i64, text: &str) -> RecordBatch {
        let mut draft = Draft::new(Kind::Events);
        for n in rows {
            draft.begin_row();
            draft.set_int(Field::TimeNs, (n * 7_919 % 13) * 1_000 + (n % 3) * DAY_NS);
            draft.set_int(Field::ObservedNs, 5);
            if n % 4 > 0 {
                draft.set_text(Field::Source, ["a", "b", "c"][n as usize % 3]);
            }
            draft.set_text(Field::Id, &format!("id-{n}"));
            let _ = draft.attribute(&format!("attribute.{shape}"), Value::Int(n));
            let _ = draft.attribute("note", Value::Text(text));
            draft.end_row();
        }
        Clean::attest(&mut draft, 1).batch().clone()
    }

    fn all(columns: &Columns) -> Vec<usize> {
        (0..columns.schema().fields().len()).collect()
    }

    fn inputs(batches: Vec<RecordBatch>) -> (Columns, Vec<Input>) {
        let mut columns = Columns::new(Kind::Events);
        let inputs = (0_u64..).zip(batches).map(|(at, batch)| {
            let (batch, added) = columns.fit(batch);
            columns = columns.with_added(&added);
            let writer: Arc<str> = format!("w-{}", 9 - at % 3).into();
            Input { batch, writer, first_seq: at * 1_000, after_day: None }
        });
        let inputs = inputs.collect();
        (columns, inputs)
    }

    #[test]
    fn rows_of_many_chunks_come_out_sorted_and_whole() {
        let batches = (0..7).map(|at| chunk(at * 100..at * 100 + 100, at % 3, "text")).collect();
        let (columns, inputs) = inputs(batches);
        let mut expected = Fingerprint::default();
        for input in &inputs {
            let at = Coordinates { writer: &input.writer, first_seq: input.first_seq };
            expected.add(&to_rows(&input.batch, columns.schema(), at));
        }
        let sorted = Sorted::new(Kind::Events, columns.schema(), inputs, None).unwrap();
        let mut found = Fingerprint::default();
        let mut days = BTreeSet::new();
        for piece in sorted.pieces(u64::MAX) {
            let batches: Vec<_> = sorted.batches(&piece, &all(&columns)).map(Result::unwrap).collect();
            let rows = concat_batches(columns.schema(), &batches).unwrap();
            let again = crate::segment::sort_rows(Kind::Events, &rows).unwrap();
            assert_eq!(again, rows, "sorted");
            found.add(&rows);
            assert!(days.insert(piece.day), "one file a date");
        }
        assert_eq!(found, expected);
        assert_eq!(days, BTreeSet::from([0, 1, 2]));
    }

    // B1: what is in memory at once is a batch and a file, and both have a bound in bytes.
    #[test]
    fn files_and_batches_are_cut_by_bytes() {
        let text = "x".repeat(50_000);
        let (columns, inputs) = inputs(vec![chunk(0..100, 0, &text), chunk(100..200, 0, "short")]);
        let sorted = Sorted::new(Kind::Events, columns.schema(), inputs, None).unwrap();
        let pieces = sorted.pieces(2 << 20);
        assert_eq!(pieces.iter().map(|piece| sorted.row_count(piece)).sum::<u64>(), 200);
        assert_eq!(pieces.len(), 3, "5 MB of text in three dates of less than two MiB each");
        let mut rows = 0;
        for piece in sorted.pieces(600_000) {
            assert!(piece.bytes <= 600_000);
            for batch in sorted.batches(&piece, &all(&columns)) {
                rows += batch.unwrap().num_rows();
            }
        }
        assert_eq!(rows, 200);
        let one = sorted.pieces(u64::MAX);
        let batches: Vec<_> = sorted.batches(&one[0], &all(&columns)).map(Result::unwrap).collect();
        assert!(batches.len() > 1);
        for batch in &batches {
            assert!((batch.get_array_memory_size() as u64) < 2 * BATCH_BYTES);
        }
        assert_eq!(sorted.pieces(1).len(), 200, "a row that is larger alone");
    }

    // A table may have a thousand columns, and a chunk some of them: a file of few rows costs those alone.
    #[test]
    fn a_piece_has_the_columns_of_its_chunks() {
        let batches = (0..7).map(|at| chunk(at * 100..at * 100 + 3, at, "text")).collect();
        let (columns, inputs) = inputs(batches);
        let sorted = Sorted::new(Kind::Events, columns.schema(), inputs, None).unwrap();
        let has = |columns: &[usize], name: &str| {
            columns.iter().any(|at| sorted.schema().field(*at).name() == name)
        };
        for piece in sorted.pieces(1) {
            let own = sorted.columns_of(&piece);
            let shapes = (0..7).filter(|shape| has(&own, &format!("attribute.{shape}")));
            assert_eq!(shapes.count(), 1, "of one chunk");
            assert!(has(&own, "message") && has(&own, "time_ns") && has(&own, "note"));
            let rows = sorted.batches(&piece, &own).next().unwrap().unwrap();
            let whole = sorted.batches(&piece, &all(&columns)).next().unwrap().unwrap();
            assert_eq!(rows, whole.project(&own).unwrap());
            let left_out = all(&columns).into_iter().filter(|at| !own.contains(at));
            assert!(left_out.map(|at| whole.column(at)).all(|column| column.logical_null_count() == 1));
        }
    }

    #[test]
    fn days_that_are_sealed_or_come_later_are_left_out() {
        let (columns, mut inputs) = inputs(vec![chunk(0..99, 0, "a")]);
        inputs[0].after_day = Some(day_of(0));
        let sorted = Sorted::new(Kind::Events, columns.schema(), inputs, Some(1)).unwrap();
        let pieces = sorted.pieces(u64::MAX);
        assert_eq!((pieces.len(), pieces[0].day, sorted.row_count(&pieces[0])), (1, 1, 33));
    }
}
