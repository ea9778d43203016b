//! An upload in parts, of which each may be lost, cut or late.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::fault::{Fault, Request};
use super::world::{Fate, World, failed};

#[derive(Debug)]
pub struct FaultyUpload {
    pub(super) world: Arc<World>,
    pub(super) location: Path,
    /// `None` once a completion is under way that nobody waits for.
    pub(super) upload: Option<Box<dyn MultipartUpload>>,
}

/// The payload, or a prefix of it.
pub fn perhaps_cut(world: &World, payload: PutPayload) -> PutPayload {
    if payload.content_length() == 0 || !world.hits(Fault::Truncate) {
        return payload;
    }
    let bytes = Bytes::from(payload);
    let kept = world.below(bytes.len() as u64);
    bytes.slice(..usize::try_from(kept).expect("less than the payload")).into()
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let world = Arc::clone(&self.world);
        // Drawn and handed on now: the parts' order is the order of these calls.
        let fate = world.fate();
        let part = match (&mut self.upload, fate) {
            (Some(upload), Fate::Well | Fate::After) => Some(upload.put_part(perhaps_cut(&world, data))),
            _ => None,
        };
        Box::pin(async move {
            world.enter(Request::PutPart).await?;
            let Some(part) = part else { return Err(failed("connection reset in a part")) };
            part.await?;
            world.hang_without_power().await;
            if fate == Fate::After { Err(failed("connection reset after a part")) } else { Ok(()) }
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        self.world.enter(Request::CompleteMultipart).await?;
        let Some(mut upload) = self.upload.take() else { return Err(failed("no such upload")) };
        let (world, location) = (Arc::clone(&self.world), self.location.clone());
        let effect = Box::pin(async move {
            let result = upload.complete().await?;
            world.landed(&location);
            Ok(result)
        });
        self.world.write(effect).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.world.enter(Request::AbortMultipart).await?;
        match &mut self.upload {
            Some(upload) => upload.abort().await,
            None => Err(failed("no such upload")),
        }
    }
}
