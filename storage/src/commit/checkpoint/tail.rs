//! The end of a Parquet file, read as if the whole were there.

use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::{ChunkReader, Length};

/// A file's bytes from one position to its end.
#[derive(Clone, Debug)]
pub struct Tail {
    from: u64,
    bytes: Bytes,
}

impl Tail {
    /// What a file has from byte `from` on.
    pub fn new(from: u64, bytes: Bytes) -> Self {
        Self { from, bytes }
    }

    /// A file that is there from its first byte.
    pub fn whole(bytes: Bytes) -> Self {
        Self::new(0, bytes)
    }

    /// The position of the first byte that is there.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// What is there from byte `start` of the file on.
    fn since(&self, start: u64) -> Result<Bytes> {
        let skipped = start.checked_sub(self.from).and_then(|skipped| usize::try_from(skipped).ok());
        match skipped {
            Some(skipped) if skipped <= self.bytes.len() => Ok(self.bytes.slice(skipped..)),
            _ => Err(ParquetError::EOF(format!("byte {start} of the file was not read"))),
        }
    }
}

impl Length for Tail {
    fn len(&self) -> u64 {
        self.from + self.bytes.len() as u64
    }
}

impl ChunkReader for Tail {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(self.since(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let mut bytes = self.since(start)?;
        if bytes.len() < length {
            return Err(ParquetError::EOF(format!(
                "the file ends within {length} bytes behind byte {start}"
            )));
        }
        bytes.truncate(length);
        Ok(bytes)
    }
}
