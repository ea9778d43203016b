//! Stages `wal` and `segment`: a clean chunk to a frame of the log, and to Parquet.
//!
//! Beside a frame stands what a textbook log would write, one JSON line a record; beside a segment, the Parquet
//! library's own writer, which neither sorts nor makes bloom filters.

use std::hint::black_box;
use std::io::{Seek, Write};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};
use ingest::scrub::{Rules, Scrubber, scrub};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use storage::inspect::{encode_frame, encode_segment, read_back_segment};
use storage::record::{Clean, Dataset, TableId, Tenant};

use crate::scrub::{chunks, decoded, throughput};

fn clean_chunks() -> Vec<(&'static str, Throughput, Clean)> {
    let clean = chunks().map(|(name, kind, body, decode)| {
        let mut draft = decoded(kind, &body, decode);
        let (clean, _) =
            scrub(&mut Scrubber::default(), &Rules::default_on(), &mut draft).expect("it scrubs");
        (name, throughput(&body), clean)
    });
    clean.into()
}

/// Times a chunk's way to the log: encoded alone, then written and synced to the disk of the temporary folder.
pub fn wal_stage(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wal");
    let table =
        TableId::new(Tenant::parse("acme").expect("a good id"), Dataset::parse("events").expect("good"));
    for (name, throughput, chunk) in clean_chunks() {
        group.throughput(throughput);
        let frame = |out: &mut Vec<u8>| encode_frame(out, &table, &chunk);
        let lines = |out: &mut Vec<u8>| {
            let mut writer = arrow::json::LineDelimitedWriter::new(out);
            writer.write(chunk.batch()).and_then(|()| writer.finish()).expect("a chunk is JSON");
        };
        encoding(&mut group, &format!("frame/{name}"), frame);
        encoding(&mut group, &format!("json_lines/{name}"), lines);
        synced(&mut group, &format!("frame_synced/{name}"), frame);
        synced(&mut group, &format!("json_lines_synced/{name}"), lines);
    }
    // The disk alone: the least that a synced append can take here.
    group.throughput(Throughput::Elements(1));
    synced(&mut group, "disk_alone", |out| out.extend_from_slice(&[7; 4096]));
    group.finish();
}

fn encoding(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, encode: impl Fn(&mut Vec<u8>)) {
    let mut out = Vec::new();
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            out.clear();
            encode(&mut out);
            black_box(out.len())
        });
    });
}

fn synced(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, encode: impl Fn(&mut Vec<u8>)) {
    let mut file = tempfile::tempfile().expect("a temporary file");
    // As the engine's segments: the space is there before, so a sync writes data alone.
    file.write_all(&vec![0; 64 << 20]).and_then(|()| file.sync_all()).expect("64 MiB of space");
    file.rewind().expect("it rewinds");
    let (mut out, mut written) = (Vec::new(), 0);
    group.bench_function(name, |bencher| {
        bencher.iter(|| {
            out.clear();
            encode(&mut out);
            if written + out.len() > 64 << 20 {
                file.rewind().expect("it rewinds");
                written = 0;
            }
            file.write_all(&out).and_then(|()| file.sync_data()).expect("the disk takes it");
            written += out.len();
        });
    });
}

/// Times a chunk's way to Parquet: sorted, with page index and bloom filters, zstd; then read back, as a seal does.
pub fn segment_stage(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("segment");
    group.sample_size(20);
    for (name, throughput, chunk) in clean_chunks() {
        group.throughput(throughput);
        group.bench_function(format!("ours/{name}"), |bencher| {
            bencher.iter(|| black_box(encode_segment(&chunk)));
        });
        group.bench_function(format!("ours_read_back/{name}"), |bencher| {
            bencher.iter(|| black_box(read_back_segment(&chunk)));
        });
        group.bench_function(format!("library_alone/{name}"), |bencher| {
            bencher.iter(|| {
                let level = Compression::ZSTD(ZstdLevel::default());
                let properties = WriterProperties::builder().set_compression(level).build();
                let mut writer = ArrowWriter::try_new(Vec::new(), chunk.batch().schema(), Some(properties))
                    .expect("Parquet holds the chunk's types");
                writer.write(chunk.batch()).expect("it encodes");
                black_box(writer.into_inner().expect("it ends"))
            });
        });
    }
    group.finish();
}
