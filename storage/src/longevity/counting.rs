//! A store that counts what is asked of it, by kind.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult,
};

/// Requests since the last [`Counting::take`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Requests {
    pub puts: u64,
    pub gets: u64,
    pub heads: u64,
    pub lists: u64,
    pub deletes: u64,
    pub bytes_put: u64,
    pub bytes_got: u64,
}

impl Requests {
    /// Requests of every kind.
    pub fn all(&self) -> u64 {
        self.puts + self.gets + self.heads + self.lists + self.deletes
    }
}

#[derive(Debug)]
pub struct Counting {
    inner: Arc<dyn ObjectStore>,
    puts: AtomicU64,
    gets: AtomicU64,
    heads: AtomicU64,
    lists: AtomicU64,
    deletes: Arc<AtomicU64>,
    bytes_put: AtomicU64,
    bytes_got: AtomicU64,
}

impl Counting {
    pub fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        let zero = AtomicU64::default;
        Arc::new(Self {
            inner,
            puts: zero(),
            gets: zero(),
            heads: zero(),
            lists: zero(),
            deletes: Arc::default(),
            bytes_put: zero(),
            bytes_got: zero(),
        })
    }

    /// What was asked since the last call.
    pub fn take(&self) -> Requests {
        let take = |count: &AtomicU64| count.swap(0, Relaxed);
        Requests {
            puts: take(&self.puts),
            gets: take(&self.gets),
            heads: take(&self.heads),
            lists: take(&self.lists),
            deletes: take(&self.deletes),
            bytes_put: take(&self.bytes_put),
            bytes_got: take(&self.bytes_got),
        }
    }
}

impl fmt::Display for Counting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counting")
    }
}

#[async_trait]
impl ObjectStore for Counting {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.puts.fetch_add(1, Relaxed);
        self.bytes_put.fetch_add(payload.content_length() as u64, Relaxed);
        self.inner.put_opts(at, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.puts.fetch_add(1, Relaxed);
        self.inner.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> StoreResult<GetResult> {
        let is_head = options.head;
        if is_head { &self.heads } else { &self.gets }.fetch_add(1, Relaxed);
        let found = self.inner.get_opts(at, options).await?;
        if !is_head {
            self.bytes_got.fetch_add(found.range.end - found.range.start, Relaxed);
        }
        Ok(found)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        let deletes = Arc::clone(&self.deletes);
        self.inner.delete_stream(
            paths
                .inspect(move |_| {
                    deletes.fetch_add(1, Relaxed);
                })
                .boxed(),
        )
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.lists.fetch_add(1, Relaxed);
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.lists.fetch_add(1, Relaxed);
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.lists.fetch_add(1, Relaxed);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
