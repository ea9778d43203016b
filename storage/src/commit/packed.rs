//! A table's state as one compressed text: the lines that its log would have, for while nobody asks for its files.

use std::io::{self, BufRead as _, BufReader, Write as _};

use super::action::{Add, Line, Remove};
use super::state::State;

/// How hard the text is compressed. Chosen: lines of one table are much alike, and more work finds little more.
const LEVEL: i32 = 1;

/// A state, packed.
#[derive(Debug)]
pub struct Packed {
    /// All of it but for its files and tombstones.
    rest: State,
    lines: Box<[u8]>,
}

impl Packed {
    /// Packs a state; `None` where it would not read back as it was.
    pub fn of(state: &State) -> Option<Self> {
        let lines = write(state).ok()?.into_boxed_slice();
        let packed = Self { rest: state.without_files(), lines };
        // Files that were lost here would be lost to every query until the next start.
        let read = packed.unpack().ok()?;
        (read.holds_the_same(state) && read.buries_the_same(state)).then_some(packed)
    }

    /// Bytes of memory that it takes, about.
    pub fn held_bytes(&self) -> usize {
        self.lines.len() + self.rest.held_bytes()
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
        let mut state = self.rest.clone();
        let invalid =
            |error: &dyn std::fmt::Display| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        let mut text = BufReader::new(zstd::stream::Decoder::with_buffer(&*self.lines)?);
        let mut line = String::new();
        while text.read_line(&mut line)? > 0 {
            let read: Line = serde_json::from_str(&line).map_err(|error| invalid(&error))?;
            // Its kind and version stay what they are.
            state.take(read).map_err(|error| invalid(&error))?;
            line.clear();
        }
        Ok(state)
    }
}

fn write(state: &State) -> io::Result<Vec<u8>> {
    let mut text = zstd::stream::Encoder::new(Vec::new(), LEVEL)?;
    // Neighbours are of one day, and most alike.
    let adds = state.files.iter().map(|file| Line { add: Some(Add::of(file, 0)), ..Line::default() });
    let removes = state
        .tombstones
        .iter()
        .map(|dead| Line { remove: Some(Remove::of(&dead.path, false, dead.removed_ms)), ..Line::default() });
    for line in adds.chain(removes) {
        serde_json::to_writer(&mut text, &line)?;
        text.write_all(b"\n")?;
    }
    let mut packed = text.finish()?;
    packed.shrink_to_fit();
    Ok(packed)
}
