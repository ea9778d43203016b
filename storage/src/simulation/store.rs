//! An object store that fails by a seed, around one that does not.
//!
//! Requests are answered late, twice, half or never; a write that was reported as failed may stand, or land
//! half a minute later. The same seed gives the same faults to the same requests. Meant for tokio's paused
//! clock, where a delay costs nothing.

mod fault;
mod multipart;
#[cfg(test)]
mod tests;
mod world;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

pub use self::fault::{Counts, Fault, Odds, Request};
use self::multipart::{FaultyUpload, perhaps_cut};
use self::world::{World, failed};

/// How late an answer or an effect is at most, milliseconds. Chosen: the default timeout of most clients.
pub const DELAY_MS_MAX: u64 = 30_000;

/// How far a listing is behind at most, milliseconds. Chosen.
pub const STALE_MS_MAX: u64 = 10_000;

/// A store that fails by a seed.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    world: Arc<World>,
}

impl FaultyStore {
    /// Faults as often as `odds` say, the same for the same `seed`, in front of `inner`.
    pub fn new(inner: Arc<dyn ObjectStore>, seed: u64, odds: Odds) -> Arc<Self> {
        Arc::new(Self { inner, world: Arc::new(World::new(seed, odds)) })
    }

    /// Other odds from now on. Effects that are under way still land.
    pub fn set_odds(&self, odds: Odds) {
        self.world.set_odds(odds);
    }

    /// While it is on, everything fails.
    pub fn outage(&self, on: bool) {
        self.world.set_outage(on);
    }

    /// From now on every call hangs for ever; what was under way lands or does not, by the seed.
    pub fn power_off(&self) {
        self.world.power_off();
    }

    /// The faults that were injected and the requests that were made.
    pub fn counts(&self) -> Counts {
        self.world.counts()
    }
}

/// The objects that a listing shows, then the error that ends it, if any.
type Listing = Vec<Result<ObjectMeta>>;

/// What a listing shows: late, behind, cut.
async fn listed(world: Arc<World>, list: BoxStream<'static, Result<ObjectMeta>>) -> Result<Listing> {
    world.enter(Request::List).await?;
    if world.hits(Fault::FailRead) {
        return Err(failed("connection reset in a listing"));
    }
    let omitted = world.omitted();
    let mut shown: Listing = list
        .filter(|object| {
            let is_shown = object.as_ref().map_or(true, |object| !omitted.contains(&object.location));
            std::future::ready(is_shown)
        })
        .collect()
        .await;
    world.hang_without_power().await;
    if world.hits(Fault::CutRead) {
        let kept = world.below(shown.len() as u64 + 1);
        shown.truncate(usize::try_from(kept).expect("at most the listing"));
        shown.push(Err(failed("connection reset in a listing")));
    }
    Ok(shown)
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultyStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.world.enter(Request::Put).await?;
        let payload = if opts.mode == PutMode::Overwrite {
            perhaps_cut(&self.world, payload)
        } else {
            // A conditional put is one request that carries its length: a store refuses less than that.
            self.world.conflict(location)?;
            payload
        };
        let (inner, world, location) = (Arc::clone(&self.inner), Arc::clone(&self.world), location.clone());
        let effect = async move {
            let result = inner.put_opts(&location, payload, opts).await?;
            world.landed(&location);
            Ok(result)
        };
        self.world.write(effect.boxed()).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.world.enter(Request::StartMultipart).await?;
        let upload = self.inner.put_multipart_opts(location, opts).await?;
        let (world, location) = (Arc::clone(&self.world), location.clone());
        Ok(Box::new(FaultyUpload { world, location, upload: Some(upload) }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_head = options.head;
        self.world.enter(if is_head { Request::Head } else { Request::Get }).await?;
        if self.world.hits(Fault::FailRead) {
            return Err(failed("connection reset in a read"));
        }
        let result = self.inner.get_opts(location, options).await?;
        self.world.hang_without_power().await;
        if is_head || !self.world.hits(Fault::CutRead) {
            return Ok(result);
        }
        let (meta, range, attributes) =
            (result.meta.clone(), result.range.clone(), result.attributes.clone());
        let bytes: Bytes = result.bytes().await?;
        let kept = self.world.below(bytes.len() as u64 + 1);
        let kept = bytes.slice(..usize::try_from(kept).expect("at most the body"));
        let body = stream::iter([Ok(kept), Err(failed("connection reset in a body"))]);
        Ok(GetResult { payload: GetResultPayload::Stream(body.boxed()), meta, range, attributes })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, world) = (Arc::clone(&self.inner), Arc::clone(&self.world));
        locations
            .and_then(move |location| {
                let (inner, world) = (Arc::clone(&inner), Arc::clone(&world));
                async move {
                    world.enter(Request::Delete).await?;
                    let gone = location.clone();
                    let effect: BoxFuture<'static, _> = async move { inner.delete(&gone).await }.boxed();
                    world.write(effect).await?;
                    Ok(location)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let shown = listed(Arc::clone(&self.world), self.inner.list(prefix));
        shown.map_ok(stream::iter).try_flatten_stream().boxed()
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let shown = listed(Arc::clone(&self.world), self.inner.list_with_offset(prefix, offset));
        shown.map_ok(stream::iter).try_flatten_stream().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.world.enter(Request::List).await?;
        if self.world.hits(Fault::FailRead) || self.world.hits(Fault::CutRead) {
            return Err(failed("connection reset in a listing"));
        }
        let omitted = self.world.omitted();
        let mut listed = self.inner.list_with_delimiter(prefix).await?;
        self.world.hang_without_power().await;
        listed.objects.retain(|object| !omitted.contains(&object.location));
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.world.enter(Request::Copy).await?;
        if options.mode == CopyMode::Create {
            self.world.conflict(to)?;
        }
        let (inner, world) = (Arc::clone(&self.inner), Arc::clone(&self.world));
        let (from, to) = (from.clone(), to.clone());
        let effect = async move {
            inner.copy_opts(&from, &to, options).await?;
            world.landed(&to);
            Ok(())
        };
        self.world.write(effect.boxed()).await
    }
}
