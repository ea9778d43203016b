//! G4: a log of 64 KiB, cut and flipped at every byte: the exact prefix comes back, or the damage is named; and what
//! salvage makes of it.

#![allow(clippy::print_stdout, reason = "a test says what it counted")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::tests::{group, log};
use crate::disk::LocalDisk;
use crate::error::Kind as ErrorKind;
use crate::wal::frame::{HEADER_BYTES, Header};
use crate::wal::replay::replay;
use crate::wal::{salvage, segment};

/// A segment's bytes, and where each frame begins and ends in it, with its number and what it vouches for.
struct Image {
    bytes: Vec<u8>,
    frames: Vec<(usize, usize, u64, u64)>,
}

/// Groups of one to four frames and a heartbeat now and then, until there are 64 KiB.
fn image() -> Image {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), 0, 0, 80 << 10);
    let mut n = 0;
    loop {
        let next = n + n % 4 + 1;
        log.write(&group(n..next)).unwrap();
        n = next;
        if n % 3 == 0 {
            log.heartbeat().unwrap();
        }
        let bytes = std::fs::read(segment::path(folder.path(), 1)).unwrap();
        let mut frames = Vec::new();
        let mut at = 0;
        while let Some((header, payload)) = Header::frame(&bytes[at..]) {
            let end = at + HEADER_BYTES + payload.len();
            frames.push((at, end, header.seq, header.durable_seq));
            at = end;
        }
        if at >= 64 << 10 {
            return Image { bytes: bytes[..at].to_vec(), frames };
        }
    }
}

/// The numbers that a replay gives, or why it stops.
fn read(folder: &std::path::Path) -> Result<Vec<u64>, ErrorKind> {
    let mut seqs = Vec::new();
    let known = salvage::known(&LocalDisk, folder).unwrap();
    let read = replay(&LocalDisk, folder, &known, |_, header, _| {
        seqs.push(header.seq);
        Ok(())
    });
    read.map(|_| seqs).map_err(|error| error.kind())
}

/// A log of one segment on the disk. What differs from one case to the next is written, and no more: the rest of a
/// file that is cut off and written again costs far more than reading it, as file systems
/// put such a file on the disk at once.
struct OnDisk {
    folder: tempfile::TempDir,
    file: File,
}

impl OnDisk {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = File::create(segment::path(folder.path(), 1)).unwrap();
        Self { folder, file }
    }

    fn write(&self, bytes: &[u8], at: usize) {
        self.file.write_all_at(bytes, at as u64).unwrap();
    }

    fn len(&self) -> usize {
        usize::try_from(self.file.metadata().unwrap().len()).unwrap()
    }

    fn read(&self) -> Result<Vec<u64>, ErrorKind> {
        read(self.folder.path())
    }
}

/// Does something at every byte below `count`, on every core: each has a log of its own and rising bytes.
fn at_every(count: usize, each: impl Fn(&OnDisk, usize) + Sync) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                let log = OnDisk::new();
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= count {
                        return;
                    }
                    each(&log, at);
                }
            });
        }
    });
}

#[test]
fn a_cut_at_every_byte_of_64_kib_is_the_exact_prefix() {
    let image = image();
    at_every(image.bytes.len() + 1, |log, cut| {
        let before = log.len();
        log.write(&image.bytes[before..cut], before);
        let whole = image.frames.iter().take_while(|(_, end, ..)| *end <= cut).map(|(_, _, seq, _)| *seq);
        assert_eq!((log.len(), log.read()), (cut, Ok(whole.collect())), "cut at {cut}");
    });
    println!("{} cuts of a log of {} frames", image.bytes.len() + 1, image.frames.len());
}

#[test]
fn a_flip_at_every_byte_of_64_kib_is_named_or_a_torn_tail() {
    let image = image();
    let named = AtomicUsize::new(0);
    at_every(image.bytes.len(), |log, at| {
        if log.len() == 0 {
            log.write(&image.bytes, 0);
        }
        log.write(&[image.bytes[at] ^ 1 << (at % 8)], at);
        let hit = image.frames.iter().position(|(_, end, ..)| at < *end).unwrap();
        let seq = image.frames[hit].2;
        let is_vouched = image.frames[hit + 1..].iter().any(|(.., durable)| *durable >= seq);
        let before: Vec<u64> = image.frames[..hit].iter().map(|(_, _, seq, _)| *seq).collect();
        let expected = if is_vouched { Err(ErrorKind::Corrupt) } else { Ok(before) };
        assert_eq!(log.read(), expected, "flip at {at}, in frame {seq}");
        named.fetch_add(usize::from(is_vouched), Ordering::Relaxed);
        log.write(&image.bytes[at..=at], at);
    });
    let (flips, named) = (image.bytes.len(), named.into_inner());
    println!("{flips} flips: {named} named, {} in a tail that nothing vouches for", flips - named);
}

/// Salvage accepts what cannot be read once, by name; everything else comes back, and new damage still stops.
#[test]
fn salvage_leaves_out_what_it_names_and_nothing_else() {
    let image = image();
    let all: Vec<u64> = image.frames.iter().map(|(_, _, seq, _)| *seq).collect();
    for hit in 0..image.frames.len() - 4 {
        let folder = tempfile::tempdir().unwrap();
        let path = segment::path(folder.path(), 1);
        let (begin, end, seq, _) = image.frames[hit];
        let mut bytes = image.bytes.clone();
        bytes[(begin + end) / 2] ^= 0x20;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(folder.path()), Err(ErrorKind::Corrupt));
        let gaps = salvage::accept(&LocalDisk, folder.path()).unwrap();
        assert_eq!(gaps.len(), 1);
        assert_eq!((gaps[0].first_seq, gaps[0].next_seq), (seq, seq + 1));
        assert_eq!((gaps[0].from, gaps[0].to), (begin as u64, end as u64));
        let without: Vec<u64> = all.iter().copied().filter(|other| *other != seq).collect();
        assert_eq!(read(folder.path()), Ok(without), "frame {seq} is left out");
        assert!(salvage::accept(&LocalDisk, folder.path()).unwrap().is_empty(), "once is enough");
        // Another frame behind it.
        let (begin, end, ..) = image.frames[hit + 2];
        bytes[(begin + end) / 2] ^= 0x20;
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(folder.path()), Err(ErrorKind::Corrupt), "new damage stops");
    }
}

/// A segment that is gone, or that ends early, is a gap too.
#[test]
fn salvage_goes_on_over_a_segment_that_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = log(folder.path(), 0, 0, 16 << 10);
    for n in 0..100 {
        log.write(&group(n..n + 1)).unwrap();
    }
    let all = read(folder.path()).unwrap();
    let numbers = segment::list(&LocalDisk, folder.path()).unwrap();
    assert!(numbers.len() >= 4);
    std::fs::remove_file(segment::path(folder.path(), numbers[1])).unwrap();
    let cut = segment::path(folder.path(), numbers[2]);
    let bytes = std::fs::read(&cut).unwrap();
    std::fs::write(&cut, &bytes[..bytes.len() / 3]).unwrap();
    assert_eq!(read(folder.path()), Err(ErrorKind::Corrupt));
    let gaps = salvage::accept(&LocalDisk, folder.path()).unwrap();
    assert!(!gaps.is_empty());
    let left = read(folder.path()).unwrap();
    let missing: Vec<u64> = all.iter().copied().filter(|seq| !left.contains(seq)).collect();
    let named = |seq: &u64| gaps.iter().any(|gap| (gap.first_seq..gap.next_seq).contains(seq));
    assert!(!missing.is_empty() && missing.iter().all(named), "{missing:?} are named by {gaps:?}");
    assert_eq!(left.last(), all.last());
}
