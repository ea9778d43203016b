//! What goes over the socket between the server and a worker: frames with a bound, a JSON head and a tail of bytes. A
//! descriptor that is lent comes with the first byte of its frame.
//!
//! ```text
//!   u32 length of head │ u32 length of tail │ head (JSON) │ tail
//! ```
//! Both in little-endian order. The two ends are always the same build, so the format has no version; it is on no
//! disk.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The longest head, in bytes: a scan's condition may name as many sources as a statement can hold.
pub const HEAD_BYTES_MAX: usize = 8 << 20;
/// The longest tail that a worker takes: one row may be as long as an ingest request.
pub const LENT_BYTES_MAX: usize = 256 << 20;
/// The longest tail that the server takes from a worker, in bytes: one piece of a reply.
pub const PIECE_BYTES_MAX: usize = 256 << 10;
/// Bytes of objects that a worker may ask for at once.
pub const READ_BYTES_MAX: u64 = 4 << 20;
/// Things that a worker may ask for before the first is answered.
pub const ASKS_MAX: usize = 8;
/// Bytes before head and tail.
pub const PREFIX_BYTES: usize = 8;

/// From the server to a worker.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToWorker {
    /// The first frame of its life.
    Configure(Configure),
    /// One query.
    Query(Question),
    /// What was asked for.
    Given {
        /// The number of what was asked.
        id: u64,
        /// The answer.
        given: Given,
    },
}

/// What a worker may use.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Configure {
    /// Threads of its query.
    pub threads: usize,
    /// Memory that it may use, in bytes, all told.
    pub memory_bytes: u64,
}

/// One query to answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Question {
    /// The statement.
    pub sql: String,
    /// The request's `Accept` header.
    pub accept: Option<String>,
    /// Rows of a JSON reply.
    pub rows_max: usize,
    /// Which query of this worker it is; set when it is sent.
    pub number: u64,
}

/// What a worker was given.
#[derive(Debug, Serialize, Deserialize)]
pub enum Given {
    /// A table; its schema as an Arrow IPC stream in the tail.
    Table {
        /// The kind of its rows.
        kind: String,
        /// Rows in it, before any condition.
        rows: u64,
    },
    /// What a scan reads.
    Scan {
        /// Its number, for hot rows.
        scan: usize,
        /// The files that can match.
        files: Vec<File>,
        /// Hot rows before any condition.
        hot_rows: u64,
        /// What would be given for the first file, as [`Self::File`] with its descriptor, or [`Self::Far`]; nothing where there
        /// is none, or where it is to be asked for to learn what is wrong with it.
        first: Option<Box<Self>>,
    },
    /// Hot rows as an Arrow IPC stream in the tail, and where the next ones begin.
    Hot {
        /// Where to go on; `None` at the end.
        next: Option<(usize, usize)>,
    },
    /// A file: its descriptor comes with the frame.
    File {
        /// The sums of its blocks, as a commit keeps them: what is read of it is proved by them.
        sums: Option<String>,
    },
    /// Files are not where this machine can read them: the server reads them.
    Far,
    /// Bytes of an object in the tail, one range after the other.
    Bytes,
    /// Nothing, and why.
    Refused(Refused),
}

/// A file of a scan.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct File {
    /// Path below the tenant's prefix.
    pub path: String,
    /// Its size.
    pub bytes: u64,
    /// Its rows.
    pub rows: u64,
    /// Lowest and highest `time_ns` in it.
    pub time_ns: (i64, i64),
}

/// A refusal on the wire.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// HTTP status.
    pub status: u16,
    /// Stable code.
    pub code: String,
    /// The sentence.
    pub detail: String,
}

/// From a worker to the server.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToServer {
    /// It is confined and waits for its first query.
    Ready {
        /// What the kernel holds it to, by name.
        confined_by: Vec<String>,
    },
    /// It needs something.
    Ask {
        /// Which query needs it.
        number: u64,
        /// The number of this need.
        id: u64,
        /// What.
        ask: Ask,
    },
    /// How far the query is.
    Progress {
        /// Rows read.
        rows: u64,
        /// Bytes of objects read.
        bytes: u64,
    },
    /// The reply begins.
    Head {
        /// Its media type.
        content_type: String,
        /// Its length, where it is known.
        bytes: Option<usize>,
    },
    /// A piece of the reply in the tail.
    Piece,
    /// The reply is whole.
    End,
    /// The query is refused, or broke off after its head.
    Refused(Refused),
    /// The query is over. A worker that could not let go of everything says so.
    Done {
        /// Whether nothing of the query is left.
        is_clean: bool,
    },
}

/// What a worker asks for.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// A table by name.
    Table {
        /// The name.
        name: String,
    },
    /// The files and hot rows of a scan.
    Scan {
        /// The table's name.
        table: String,
        /// The columns, by their places in the schema.
        projection: Option<Vec<usize>>,
        /// Lowest and highest `time_ns` that can match.
        time_ns: (i64, i64),
        /// The sources that can match; `None` for any.
        sources: Option<Vec<String>>,
    },
    /// Hot rows of a scan.
    Hot {
        /// Its number.
        scan: usize,
        /// Where to begin.
        at: (usize, usize),
    },
    /// A file of a scan, to be read without the server.
    Open {
        /// Its path.
        path: String,
    },
    /// Ranges of a file of a scan.
    Read {
        /// Its path.
        path: String,
        /// Begin and end of each.
        ranges: Vec<(u64, u64)>,
    },
}

/// A frame that breaks the bounds or cannot be read: the other end is not what it should be.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// The bytes before a tail.
#[must_use]
pub fn begin<T: Serialize>(head: &T, tail_bytes: usize) -> Vec<u8> {
    let head = serde_json::to_vec(head).expect("heads are plain values");
    let mut bytes = Vec::with_capacity(PREFIX_BYTES + head.len());
    bytes.extend_from_slice(&u32::try_from(head.len()).expect("heads have a bound").to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(tail_bytes).expect("tails have a bound").to_le_bytes());
    bytes.extend_from_slice(&head);
    bytes
}

/// The lengths of head and tail.
///
/// # Errors
/// Where one is over its bound.
pub fn lengths(prefix: [u8; PREFIX_BYTES], tail_bytes_max: usize) -> Result<(usize, usize), Malformed> {
    let [a, b, c, d, e, f, g, h] = prefix;
    let (head, tail) = (u32::from_le_bytes([a, b, c, d]) as usize, u32::from_le_bytes([e, f, g, h]) as usize);
    if head > HEAD_BYTES_MAX || tail > tail_bytes_max {
        return Err(Malformed);
    }
    Ok((head, tail))
}

/// Reads a head.
///
/// # Errors
/// Where it is none.
pub fn head<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Malformed> {
    serde_json::from_slice(bytes).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::{Malformed, PIECE_BYTES_MAX, PREFIX_BYTES, ToServer, begin, head, lengths};

    fn prefix(head: usize, tail: usize) -> [u8; PREFIX_BYTES] {
        let mut prefix = [0; PREFIX_BYTES];
        prefix[..4].copy_from_slice(&u32::try_from(head).unwrap().to_le_bytes());
        prefix[4..].copy_from_slice(&u32::try_from(tail).unwrap().to_le_bytes());
        prefix
    }

    #[test]
    fn a_frame_reads_back() {
        let bytes = begin(&ToServer::Piece, 7);
        let (head_bytes, tail) = lengths(bytes[..8].try_into().unwrap(), PIECE_BYTES_MAX).unwrap();
        assert_eq!((head_bytes, tail), (bytes.len() - 8, 7));
        assert!(matches!(head(&bytes[8..]), Ok(ToServer::Piece)));
        assert!(head::<ToServer>(b"{\"Nothing\":1}").is_err());
    }

    // B1
    #[test]
    fn a_frame_over_its_bound_is_refused_before_it_is_read() {
        assert!(lengths(prefix(8 << 20, 256 << 10), PIECE_BYTES_MAX).is_ok());
        assert_eq!(lengths(prefix((8 << 20) + 1, 0), PIECE_BYTES_MAX), Err(Malformed));
        assert_eq!(lengths(prefix(1, (256 << 10) + 1), PIECE_BYTES_MAX), Err(Malformed));
    }
}
