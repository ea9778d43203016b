//! Snapshots made by hand for tests: chunks drafted through storage's own API, some written as Parquet files
//! into a store in memory, some left hot.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use object_store::memory::InMemory;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStoreExt, PutPayload, path::Path};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use serde_json::Value as Json;
use storage::latency::Measurement;
use storage::memory::Memory;
use storage::reader::{Blocks, DataFile, HotRows, LatencySnapshot, Proofs, Snapshot};
use storage::record::fit::{Columns, Coordinates, to_rows};
use storage::record::{Clean, Dataset, Draft, Field, Kind, TableId, Tenant};
use storage::{Acknowledgement, Principal, Role, Roles};

use crate::endpoints::{self, Endpoint};
use crate::plan::session::Sessions;
use crate::query::{Answer, Body, Options, Request, answer_view};
use crate::refusal::Refusal;
use crate::view::{Ground, View};
use crate::worker::{self, Asked, Launch, Lender, Pool};

/// 2026-01-02T03:04:05Z.
pub const T0: i64 = 1_767_323_045_000_000_000;
pub const SECOND: i64 = 1_000_000_000;

/// One deployment in memory.
pub struct Fixture {
    pub store: Arc<InMemory>,
    pub snapshots: Vec<Snapshot>,
    pub hot_latency: Vec<Arc<Measurement>>,
    pub options: Options,
    pub memory: Arc<Memory>,
    pub proofs: Arc<Proofs>,
    /// Workers that were asked: a stream outlives the call that began it.
    pools: Mutex<Vec<Pool>>,
}

/// Drafts the rows of a chunk.
type Fill<'a> = &'a dyn Fn(&mut Draft);

/// Whether a chunk is sealed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Sealed {
    Yes,
    No,
}

impl Fixture {
    pub fn new() -> Self {
        Self {
            store: Arc::new(InMemory::new()),
            snapshots: Vec::new(),
            hot_latency: Vec::new(),
            // Longer than anything takes that a test asks for on a busy machine.
            options: Options { time_max: Duration::from_secs(600), ..Options::default() },
            memory: Memory::new(1 << 30, 0),
            proofs: Arc::default(),
            pools: Mutex::default(),
        }
    }

    /// Adds a table of these chunks; each function drafts the rows of one.
    pub async fn table(&mut self, tenant: &str, dataset: &str, kind: Kind, chunks: &[(Sealed, Fill<'_>)]) {
        let table = TableId::new(Tenant::parse(tenant).unwrap(), Dataset::parse(dataset).unwrap());
        let mut columns = Columns::new(kind);
        let (mut files, mut hot, mut seq) = (Vec::new(), Vec::new(), 0);
        for (sealed, fill) in chunks {
            let mut draft = Draft::new(kind);
            fill(&mut draft);
            let clean = Clean::attest(&mut draft, 1);
            let (batch, added) = columns.fit(clean.batch().clone());
            columns = columns.with_added(&added);
            let at = Coordinates { writer: "w0", first_seq: seq };
            seq += batch.num_rows() as u64;
            if *sealed == Sealed::Yes {
                files.push(self.file(&table, files.len(), &to_rows(&batch, columns.schema(), at)).await);
            } else {
                hot.push(HotRows::new(batch, at.writer, at.first_seq));
            }
        }
        let schema = Arc::clone(columns.schema());
        self.snapshots.push(Snapshot { table, kind, version: Some(1), schema, files, hot });
    }

    async fn file(&self, table: &TableId, number: usize, rows: &RecordBatch) -> Arc<DataFile> {
        let properties = WriterProperties::builder().set_bloom_filter_enabled(true).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).unwrap();
        writer.write(rows).unwrap();
        let bytes = writer.into_inner().unwrap();
        let path = format!("date=2026-01-02/{number:04}.parquet");
        let file = DataFile {
            path: path.clone(),
            bytes: bytes.len() as u64,
            rows: rows.num_rows() as u64,
            time_ns: {
                let times = rows.column_by_name("time_ns").unwrap().as_primitive::<Int64Type>();
                (arrow::compute::min(times).unwrap(), arrow::compute::max(times).unwrap())
            },
            source: {
                let sources = rows.column_by_name("source").unwrap().as_string::<i32>();
                let low = arrow::compute::min_string(sources).unwrap().to_owned();
                Some((low, arrow::compute::max_string(sources).unwrap().to_owned()))
            },
            digest: Some(*blake3::hash(&bytes).as_bytes()),
            // Every other file is from before there were sums.
            blocks: number.is_multiple_of(2).then(|| Arc::new(Blocks::of(&bytes))),
            stats: None,
        };
        let location = Path::parse(format!("{}/{path}", table.prefix())).unwrap();
        self.store.put(&location, PutPayload::from(bytes)).await.unwrap();
        Arc::new(file)
    }

    /// What `tenant` gets when it asks with these roles.
    pub async fn ask_as(&self, tenant: &str, roles: &[Role], request: Request) -> Result<Answer, Refusal> {
        let view = self.view(tenant, roles);
        if request.endpoint == Endpoint::Sql {
            let tenant = view.tenant().clone();
            return self.sql_of(tenant, Roles::of(roles), view, &request).await;
        }
        let sessions = Sessions::new(self.options.memory_bytes, self.options.threads);
        answer_view(&view, &request, &sessions).await
    }

    /// What `tenant` sees with these roles.
    pub fn view(&self, tenant: &str, roles: &[Role]) -> View {
        let tenant = Tenant::parse(tenant).unwrap();
        let own: Vec<_> = self.snapshots.iter().filter(|one| one.table.tenant == tenant).cloned().collect();
        let stored = own.iter().find(|one| one.kind == Kind::Latency).cloned();
        let latency = LatencySnapshot { stored, hot: self.hot_latency.clone() };
        let ground = Ground {
            store: Arc::clone(&self.store) as _,
            proofs: Arc::clone(&self.proofs),
            memory: Arc::clone(&self.memory),
        };
        View::new(tenant, Roles::of(roles), ground, own, latency)
    }

    /// SQL in a worker that is a thread of the test.
    async fn sql_of(
        &self,
        tenant: Tenant,
        roles: Roles,
        view: View,
        request: &Request,
    ) -> Result<Answer, Refusal> {
        let question = endpoints::sql::question(request, self.options.rows_max)?;
        let store = PrefixStore::new(Arc::clone(&self.store), format!("tenant/{tenant}"));
        let payer = (Memory::new(64 << 20, 0), view.tenant().clone());
        let lender = Lender::new(
            move |name| view.tables().get(name).cloned(),
            Arc::new(store),
            Arc::clone(&self.proofs),
            payer,
        );
        let (key, time_max) = ((tenant, roles), self.options.time_max);
        let asked = Asked { key, question, lender, time_max, correlation_id: "c".into() };
        let pool = Pool::start(
            worker::Options {
                launch: Launch::Thread,
                workers_max: 2,
                warm: 0,
                memory_bytes: self.options.memory_bytes as u64,
                threads: self.options.threads,
            },
            || {},
        )
        .unwrap();
        let answer = pool.ask(asked);
        self.pools.lock().unwrap().push(pool);
        answer.await
    }

    /// A GET as tenant `a`.
    pub async fn get(&self, endpoint: Endpoint, path_id: &str, query: &str) -> Result<Json, Refusal> {
        let mut request = request(endpoint);
        request.path_id = Some(path_id.to_owned());
        request.query = Some(query.to_owned());
        Ok(json(self.ask_as("a", &[Role::Analyst], request).await?))
    }

    /// A query as tenant `a`.
    pub async fn sql(&self, sql: &str) -> Result<Json, Refusal> {
        self.sql_as("a", &[Role::Analyst], sql).await
    }

    /// A query as `tenant`.
    pub async fn sql_as(&self, tenant: &str, roles: &[Role], sql: &str) -> Result<Json, Refusal> {
        Ok(json(self.ask_as(tenant, roles, sql_request(sql, None)).await?))
    }
}

/// A request with nothing in it.
pub fn request(endpoint: Endpoint) -> Request {
    Request {
        endpoint,
        path_id: None,
        query: None,
        accept: None,
        body: Bytes::new(),
        principal: Principal {
            tenant: Tenant::parse("nobody").unwrap(),
            roles: Roles::NONE,
            subject: "test".into(),
            acknowledgement: Acknowledgement::Durable,
        },
        now_ns: T0,
        correlation_id: "c".into(),
    }
}

/// A query's request.
pub fn sql_request(sql: &str, accept: Option<&str>) -> Request {
    let mut request = request(Endpoint::Sql);
    request.body = serde_json::json!({ "query": sql }).to_string().into();
    request.accept = accept.map(str::to_owned);
    request
}

/// A whole reply as JSON.
pub fn json(answer: Answer) -> Json {
    let Body::Full(bytes) = answer.body else { panic!("a whole body") };
    serde_json::from_slice(&bytes)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&bytes)))
}

/// All of a streamed reply.
pub async fn streamed(answer: Answer) -> Vec<u8> {
    let mut pieces = match answer.body {
        // What is short is held back until its length is known.
        Body::Full(bytes) => return bytes.to_vec(),
        Body::Stream(pieces) => pieces,
    };
    let mut all = Vec::new();
    while let Some(piece) = pieces.recv().await {
        all.extend_from_slice(&piece.expect("the stream is not cut"));
    }
    all
}

/// Drafts one row.
pub fn row(draft: &mut Draft, time_ns: i64, source: &str, fill: impl FnOnce(&mut Draft)) {
    draft.begin_row();
    draft.set_int(Field::TimeNs, time_ns);
    draft.set_int(Field::ObservedNs, time_ns);
    draft.set_text(Field::Source, source);
    fill(draft);
    draft.end_row();
}

/// Drafts one span of a trace; `parent` 0 is none.
pub fn span(
    draft: &mut Draft,
    time_ns: i64,
    source: &str,
    ids: (u128, u64, u64),
    duration_ns: i64,
    is_error: bool,
) {
    let (trace, id, parent) = ids;
    row(draft, time_ns, source, |draft| {
        let mut text = String::new();
        write!(text, "{trace:032x}").unwrap();
        draft.set_text(Field::TraceId, &text);
        draft.set_text(Field::SpanId, &format!("{id:016x}"));
        if parent != 0 {
            draft.set_text(Field::ParentSpanId, &format!("{parent:016x}"));
        }
        draft.set_text(Field::Id, &format!("id-{id}"));
        draft.set_text(Field::Name, &format!("op-{id}"));
        draft.set_text(Field::SpanKind, "server");
        draft.set_int(Field::DurationNs, duration_ns);
        draft.set_text(Field::StatusCode, if is_error { "error" } else { "unset" });
    });
}
