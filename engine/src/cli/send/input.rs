//! The bytes of a file or of standard input: gzip and zstd are seen by their first bytes and inflated on
//! the way, and what was read of the file itself is counted for the progress bar.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file that is being read.
pub struct Input {
    /// The bytes, inflated.
    pub reader: Box<dyn BufRead + Send>,
    /// The file's name without a compression suffix, empty for standard input.
    pub name: String,
    /// The file's size as stored, where it is known.
    pub size_bytes: Option<u64>,
    /// How much of it was read so far.
    pub read_bytes: Arc<AtomicU64>,
}

/// Bytes looked at to tell what a file holds.
const HEAD_BYTES: usize = 64 << 10;

/// Opens `path`, or standard input for `-`.
///
/// # Errors
/// When it cannot be opened or read.
pub fn open(path: &Path) -> io::Result<Input> {
    let read_bytes = Arc::new(AtomicU64::new(0));
    if path == Path::new("-") {
        let reader = inflate(Counted { inner: io::stdin(), count: read_bytes.clone() })?;
        return Ok(Input { reader, name: String::new(), size_bytes: None, read_bytes });
    }
    let file = File::open(path)?;
    let size_bytes = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    let reader = inflate(Counted { inner: file, count: read_bytes.clone() })?;
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let name =
        [".zst", ".gz"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name).to_owned();
    Ok(Input { reader, name, size_bytes, read_bytes })
}

impl Input {
    /// Returns the first bytes without taking them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn head(&mut self) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        (&mut self.reader).take(HEAD_BYTES as u64).read_to_end(&mut head)?;
        let rest = std::mem::replace(&mut self.reader, Box::new(io::empty()));
        self.reader = Box::new(io::Cursor::new(head.clone()).chain(rest));
        Ok(head)
    }
}

fn inflate(raw: impl Read + Send + 'static) -> io::Result<Box<dyn BufRead + Send>> {
    let mut raw = BufReader::with_capacity(1 << 16, raw);
    let start = raw.fill_buf()?;
    if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Ok(Box::new(BufReader::new(zstd::stream::read::Decoder::with_buffer(raw)?)))
    } else if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(BufReader::new(flate2::bufread::MultiGzDecoder::new(raw))))
    } else {
        Ok(Box::new(raw))
    }
}

struct Counted<R> {
    inner: R,
    count: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        // Only a progress bar reads it: no order is needed.
        self.count.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::encoding::Encoding;

    #[test]
    fn compressed_bytes_are_inflated() {
        let plain = b"cpu usage=1\n".repeat(10);
        for encoding in [Encoding::None, Encoding::Gzip, Encoding::Zstd] {
            let stored = encoding.encode(plain.clone()).expect("fits memory");
            let mut text = Vec::new();
            let mut reader = inflate(io::Cursor::new(stored)).expect("own bytes");
            reader.read_to_end(&mut text).expect("own bytes");
            assert_eq!(text, plain, "{encoding:?}");
        }
    }

    #[test]
    fn the_head_is_not_taken() {
        let reader = inflate(io::Cursor::new(b"abc".to_vec())).expect("own bytes");
        let mut input = Input { reader, name: String::new(), size_bytes: None, read_bytes: Arc::default() };
        assert_eq!(input.head().expect("own bytes"), b"abc");
        let mut text = String::new();
        input.reader.read_to_string(&mut text).expect("own bytes");
        assert_eq!(text, "abc");
    }
}
