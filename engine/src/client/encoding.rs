//! Compression of request bodies, as `content-encoding` names it.

use std::io::{self, Write as _};

/// How a request's body is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Encoding {
    /// As it is.
    #[default]
    None,
    /// gzip, level 1: every server takes it.
    Gzip,
    /// zstd, level 1: half the time of gzip and smaller.
    Zstd,
}

impl Encoding {
    /// Returns the header's value, none for an uncompressed body.
    pub fn header(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// Compresses `body`.
    ///
    /// # Errors
    /// When the compressor fails, which memory alone can make it do.
    pub fn encode(self, body: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(body),
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(&body)?;
                encoder.finish()
            }
            Self::Zstd => zstd::bulk::compress(&body, 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn every_encoding_round_trips() {
        let body = b"cpu,host=a usage=1\n".repeat(100);
        assert_eq!(Encoding::None.encode(body.clone()).expect("no work"), body);
        let zstd = Encoding::Zstd.encode(body.clone()).expect("fits memory");
        assert_eq!(zstd::bulk::decompress(&zstd, body.len()).expect("own bytes"), body);
        let gzip = Encoding::Gzip.encode(body.clone()).expect("fits memory");
        let mut back = Vec::new();
        flate2::read::GzDecoder::new(&gzip[..]).read_to_end(&mut back).expect("own bytes");
        assert_eq!(back, body);
    }
}
