//! Arrow's IPC stream, a batch at a time.

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::ipc::writer::StreamWriter;

/// Encodes a result as one stream.
pub struct Encoder {
    writer: StreamWriter<Vec<u8>>,
}

impl Encoder {
    /// Begins a stream of that schema.
    ///
    /// # Errors
    /// Where Arrow cannot encode the schema.
    pub fn new(schema: &Schema) -> arrow::error::Result<Self> {
        Ok(Self { writer: StreamWriter::try_new(Vec::new(), schema)? })
    }

    /// Appends what is encoded and not taken yet.
    ///
    /// # Errors
    /// None today; the writer's buffer is memory.
    pub fn drain(&mut self, out: &mut Vec<u8>) -> arrow::error::Result<()> {
        out.append(self.writer.get_mut());
        Ok(())
    }

    /// Appends one batch.
    ///
    /// # Errors
    /// Where Arrow cannot encode it.
    pub fn write(&mut self, out: &mut Vec<u8>, batch: &RecordBatch) -> arrow::error::Result<()> {
        self.writer.write(batch)?;
        self.drain(out)
    }

    /// Appends the stream's end.
    ///
    /// # Errors
    /// Where Arrow cannot encode it.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> arrow::error::Result<()> {
        self.writer.finish()?;
        self.drain(out)
    }
}
