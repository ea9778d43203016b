//! A table's state in a few dozen bytes a file, for while nobody asks for its files.
//!
//! What is alike stands together, column by column, and is compressed. Of what is left most is random: the files' digests,
//! and the random part of their names.

use std::io;
use std::sync::{Arc, Weak};

use uuid::Uuid;

use super::folders::place;
use super::state::{State, Tombstone};
use crate::reader::DataFile;
use crate::segment::Blocks;

/// How hard it is compressed. Chosen: more work finds little more, for most of it is random.
const LEVEL: i32 = 1;

/// What the names of this engine's files end in, behind their ids.
const SUFFIX: &str = ".parquet";

/// A state, packed.
#[derive(Debug)]
pub struct Packed {
    /// All of it but for its files and tombstones.
    rest: State,
    columns: Box<[u8]>,
}

impl Packed {
    /// Packs a state; `None` where it would not read back as it was.
    pub fn of(state: &State) -> Option<Self> {
        let columns = zstd::stream::encode_all(&*write(state), LEVEL).ok()?.into_boxed_slice();
        let packed = Self { rest: state.without_files(), columns };
        // Files that were lost here would be lost to every query until the next start.
        let read = packed.unpack().ok()?;
        (read.holds_the_same(state) && read.buries_the_same(state)).then_some(packed)
    }

    /// Bytes of memory that it takes, about.
    pub fn held_bytes(&self) -> usize {
        self.columns.len() + self.rest.held_bytes()
    }

    /// The state but for its files and tombstones.
    pub fn without_files(&self) -> &State {
        &self.rest
    }

    /// The state as it was; its files are new ones, which nobody pins.
    ///
    /// # Errors
    /// Where it was not packed by [`Self::of`].
    pub fn unpack(&self) -> io::Result<State> {
        let columns = zstd::stream::decode_all(&*self.columns)?;
        let mut input = Input(&columns);
        let counts = input.numbers(2)?;
        let mut state = self.rest.clone();
        for file in input.files(usize::try_from(counts[0]).map_err(|_| damaged())?)? {
            state.files.insert(Arc::new(file));
        }
        let dead = usize::try_from(counts[1]).map_err(|_| damaged())?;
        let (paths, removed) = (input.paths(dead)?, input.numbers(dead)?);
        for (path, removed_ms) in paths.into_iter().zip(removed) {
            let removed_ms = removed_ms.cast_signed();
            state.tombstones.insert(Tombstone { path: path.into(), removed_ms, pin: Weak::new() });
        }
        Ok(state)
    }
}

fn write(state: &State) -> Vec<u8> {
    let mut out = Output(Vec::new());
    let files = state.files.iter().map(|file| &**file);
    out.numbers([state.files.len(), state.tombstones.len()].into_iter().map(|count| count as u64));
    out.paths(files.clone().map(|file| file.path.as_str()));
    out.numbers(files.clone().map(|file| file.bytes));
    out.numbers(files.clone().map(|file| file.rows));
    out.numbers(files.clone().map(|file| file.time_ns.0.cast_unsigned()));
    out.numbers(files.clone().map(|file| file.time_ns.1.wrapping_sub(file.time_ns.0).cast_unsigned()));
    let sources = files.clone().map(|file| file.source.as_ref());
    out.numbers(sources.clone().map(|bounds| bounds.map_or(0, |(low, high)| 1 + u64::from(low != high))));
    out.texts(sources.clone().map(|bounds| bounds.map_or("", |(low, _)| low)));
    out.texts(sources.map(|bounds| bounds.filter(|(low, high)| low != high).map_or("", |(_, high)| high)));
    out.numbers(files.clone().map(|file| u64::from(file.digest.is_some())));
    files.clone().filter_map(|file| file.digest).for_each(|digest| out.0.extend(digest));
    let blocks: Vec<String> = files
        .clone()
        .map(|file| file.blocks.as_ref().map_or_else(String::new, |blocks| blocks.encode()))
        .collect();
    out.texts(blocks.iter().map(String::as_str));
    out.texts(files.map(|file| file.stats.as_deref().unwrap_or_default()));
    out.paths(state.tombstones.iter().map(|dead| &*dead.path));
    out.numbers(state.tombstones.iter().map(|dead| dead.removed_ms.cast_unsigned()));
    out.0
}

/// The id in a file's name, where the name is nothing else.
fn id(name: &str) -> Option<Uuid> {
    let id = Uuid::try_parse(name.strip_suffix(SUFFIX)?).ok()?;
    (name_of(id) == name).then_some(id)
}

fn name_of(id: Uuid) -> String {
    format!("{id}{SUFFIX}")
}

struct Output(Vec<u8>);

impl Output {
    /// Numbers, the first byte of all, then the second of all: the high ones are mostly the same.
    fn numbers(&mut self, numbers: impl Iterator<Item = u64>) {
        let numbers: Vec<[u8; 8]> = numbers.map(u64::to_le_bytes).collect();
        (0..8).for_each(|byte| self.0.extend(numbers.iter().map(|number| number[byte])));
    }

    fn texts<'a>(&mut self, texts: impl Iterator<Item = &'a str> + Clone) {
        self.numbers(texts.clone().map(|text| text.len() as u64));
        texts.for_each(|text| self.0.extend(text.bytes()));
    }

    /// Folders, ids, and the names that are no ids.
    fn paths<'a>(&mut self, paths: impl Iterator<Item = &'a str> + Clone) {
        // A folder keeps the slash behind it.
        let places = paths.map(|path| path.split_at(path.len() - place(path).1.len()));
        self.texts(places.clone().map(|(folder, _)| folder));
        let ids: Vec<Option<Uuid>> = places.clone().map(|(_, name)| id(name)).collect();
        self.numbers(ids.iter().map(|id| u64::from(id.is_some())));
        let halves = ids.iter().map(|id| id.unwrap_or_default().as_u64_pair());
        self.numbers(halves.clone().map(|(high, _)| high));
        self.numbers(halves.map(|(_, low)| low));
        let others = places.zip(&ids).map(|((_, name), id)| if id.is_some() { "" } else { name });
        self.texts(others);
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, bytes: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or_else(damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn numbers(&mut self, count: usize) -> io::Result<Vec<u64>> {
        let bytes = self.take(count.checked_mul(8).ok_or_else(damaged)?)?;
        let number = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[byte * count + at]));
        Ok((0..count).map(number).collect())
    }

    fn texts(&mut self, count: usize) -> io::Result<Vec<&'a str>> {
        // Their lengths stand before all of them.
        let lengths = self.numbers(count)?;
        let text = |bytes: u64| {
            let bytes = self.take(usize::try_from(bytes).map_err(|_| damaged())?)?;
            std::str::from_utf8(bytes).map_err(|_| damaged())
        };
        lengths.into_iter().map(text).collect()
    }

    fn paths(&mut self, count: usize) -> io::Result<Vec<String>> {
        let folders = self.texts(count)?;
        let (are_ids, high, low) = (self.numbers(count)?, self.numbers(count)?, self.numbers(count)?);
        let others = self.texts(count)?;
        let path = |at: usize| {
            let name = match are_ids[at] {
                0 => others[at].to_owned(),
                _ => name_of(Uuid::from_u64_pair(high[at], low[at])),
            };
            format!("{}{name}", folders[at])
        };
        Ok((0..count).map(path).collect())
    }

    fn files(&mut self, count: usize) -> io::Result<Vec<DataFile>> {
        let paths = self.paths(count)?;
        let (bytes, rows) = (self.numbers(count)?, self.numbers(count)?);
        let (first_ns, span_ns) = (self.numbers(count)?, self.numbers(count)?);
        let (bounds, low, high) = (self.numbers(count)?, self.texts(count)?, self.texts(count)?);
        let mut digests = Vec::with_capacity(count);
        for is_there in self.numbers(count)? {
            let digest = if is_there == 0 { None } else { Some(self.take(32)?) };
            digests.push(digest.and_then(|digest| digest.try_into().ok()));
        }
        let (blocks, stats) = (self.texts(count)?, self.texts(count)?);
        let file = |(at, path): (usize, String)| {
            let high = if bounds[at] == 1 { low[at] } else { high[at] };
            let first = first_ns[at].cast_signed();
            DataFile {
                path,
                bytes: bytes[at],
                rows: rows[at],
                time_ns: (first, first.wrapping_add(span_ns[at].cast_signed())),
                source: (bounds[at] > 0).then(|| (low[at].to_owned(), high.to_owned())),
                digest: digests[at],
                blocks: Blocks::decode(blocks[at], bytes[at]).map(Arc::new),
                stats: (!stats[at].is_empty()).then(|| stats[at].into()),
            }
        };
        Ok(paths.into_iter().enumerate().map(file).collect())
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a packed table is not what was packed")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::Packed;
    use crate::commit::state_of;
    use crate::reader::DataFile;
    use crate::segment::Blocks;

    fn file() -> impl Strategy<Value = DataFile> {
        let name = prop_oneof![
            any::<u128>().prop_map(|id| format!("date=2026-01-01/{}.parquet", uuid::Uuid::from_u128(id))),
            any::<u128>().prop_map(|id| format!("{}.PARQUET", uuid::Uuid::from_u128(id).simple())),
            "[a-c/]{0,3}[a-zä-ö0-9.]{1,9}",
        ];
        let text = || "[a-bß]{0,2}";
        let source = prop::option::of((text(), text()));
        let stats = prop::option::of(Just(r#"{"numRecords":1}"#.into()));
        let blocks = prop::option::of(prop::collection::vec(any::<u8>(), 1..200_000));
        (name, any::<(u64, u64, i64, i64)>(), source, any::<Option<[u8; 32]>>(), blocks, stats).prop_map(
            |(path, (bytes, rows, first, last), source, digest, blocks, stats)| DataFile {
                path,
                bytes: blocks.as_ref().map_or(bytes >> 1, |file| file.len() as u64),
                rows,
                time_ns: (first, last),
                source,
                digest,
                blocks: blocks.map(|file| Arc::new(Blocks::of(&file))),
                stats,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Whatever is known of files, ours or others', comes back.
        #[test]
        fn what_is_packed_comes_back(files in prop::collection::vec(file(), 0..40), removed in 0..20_usize) {
            let removed: Vec<String> = files.iter().take(removed).map(|file| file.path.clone()).collect();
            let mut state = state_of(7, std::iter::empty(), &removed);
            for file in files {
                state.tombstones.remove(&file.path);
                state.files.insert(Arc::new(file));
            }
            let packed = Packed::of(&state).expect("it reads back");
            let read = packed.unpack().unwrap();
            prop_assert!(read.holds_the_same(&state) && read.buries_the_same(&state));
            prop_assert!(read.files.iter().eq(state.files.iter()));
        }
    }

    /// B1: at rest a file takes its digest, its random name, and little more.
    #[test]
    fn a_packed_file_takes_little_beside_what_is_random() {
        let file = |number: u64| {
            let content = blake3::hash(&number.to_le_bytes());
            let now_ns = 1_800_000_000_000_000_000 + number as i64 * 3_000_000;
            DataFile {
                path: crate::segment::path(&format!("2026-01-{:02}", 1 + number % 28), now_ns),
                bytes: 3_000 + number % 700,
                rows: 1 + number % 9,
                time_ns: (now_ns / 1_000_000_000 * 1_000_000_000, now_ns),
                source: Some(("checkout".into(), "checkout".into())),
                digest: Some(*content.as_bytes()),
                blocks: Some(Arc::new(Blocks::of(content.as_bytes()))),
                stats: None,
            }
        };
        let mut state = state_of(7, std::iter::empty(), &[]);
        (0..10_000).for_each(|number| state.files.insert(Arc::new(DataFile { bytes: 32, ..file(number) })));
        let bytes = Packed::of(&state).unwrap().held_bytes() / 10_000;
        assert!((32 + 9 + 4..70).contains(&bytes), "{bytes} bytes a file");
    }
}
