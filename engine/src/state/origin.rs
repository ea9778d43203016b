//! Whose records these are: checked before the first of them is believed.
//!
//! `system/master.json` says which master key a deployment belongs to. `system/proven.json` says that every record has a
//! proof, so that one without is refused from then on. A deployment from before has neither proofs nor that object: its
//! records are taken over once, as they are found, and it says so. Where that was cut off it is gone on with.
//!
//! The data folder remembers that it has seen the deployment proven (`DIR/proven`): whoever deletes the object from the
//! bucket does not get a second taking over.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path as FsPath, PathBuf};

use object_store::{ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, PutPayload};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Error;
use super::proof::{Proof, Prover};
use super::store::{bytes, failed, list, path};
use crate::clock::Clock;

/// Folders of records.
const FOLDERS: [&str; 6] = ["tenants", "keys", "limits", "retention", "holds", "jobs"];

/// Which master key a deployment belongs to.
#[derive(Serialize, Deserialize)]
struct Master {
    check: String,
}

/// Whether every record has a proof.
#[derive(Serialize, Deserialize)]
struct Proven {
    /// False while records from before are being taken over.
    is_done: bool,
    since_ns: i64,
}

/// What a start found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nothing was ever made here.
    New,
    /// Every record proves, or is refused.
    Proven,
    /// A deployment from before: so many records were taken over.
    TakenOver(usize),
}

/// Where a data folder remembers that its deployment is proven.
#[must_use]
pub fn mark(data: &FsPath) -> PathBuf {
    data.join("proven")
}

/// Whether a deployment belongs to the master key of `check`; `None` where none was ever made. Changes nothing.
///
/// # Errors
/// [`Error::Forbidden`] when it is another's; [`Error::Corrupt`] naming the object where it does not say.
pub async fn is_ours(objects: &dyn ObjectStore, check: &str) -> Result<Option<()>, Error> {
    match bytes(objects, &path("master")).await? {
        Some(bytes) => said_check(&bytes, check).map(Some),
        None => Ok(None),
    }
}

/// As [`is_ours`], of a store that is a folder, before anything of it is opened.
///
/// # Errors
/// As [`is_ours`].
pub fn is_ours_in(root: &FsPath, check: &str) -> Result<Option<()>, Error> {
    match fs::read(root.join("system").join("master.json")) {
        Ok(bytes) => said_check(&bytes, check).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(_) => Err(Error::Corrupt(path("master").to_string())),
    }
}

fn said_check(bytes: &[u8], check: &str) -> Result<(), Error> {
    let said: Master =
        serde_json::from_slice(bytes).map_err(|_| Error::Corrupt(path("master").to_string()))?;
    if said.check == check {
        return Ok(());
    }
    Err(Error::Forbidden("the master key is not the one this data folder was made with"))
}

/// Makes sure that every record proves, or is refused when it is read. `adopts` takes over what does not, again: for an
/// operator who let a build from before write.
///
/// # Errors
/// [`Error::Forbidden`] under another master key; [`Error::Forged`] naming what does not prove; [`Error::Corrupt`]
/// naming what is no record.
pub async fn check(
    objects: &dyn ObjectStore,
    prover: &Prover,
    master_check: &str,
    mark: &FsPath,
    adopts: bool,
) -> Result<Origin, Error> {
    let is_there = is_ours(objects, master_check).await?.is_some();
    let at = path("proven");
    let known = match bytes(objects, &at).await? {
        Some(bytes) if prover.check(at.as_ref(), &bytes) == Proof::Holds => {
            let known = serde_json::from_slice::<Proven>(&bytes);
            Some(known.map_err(|_| Error::Corrupt(at.to_string()))?)
        }
        Some(_) => return Err(Error::Forged(at.to_string())),
        None => None,
    };
    let is_done = known.as_ref().is_some_and(|known| known.is_done);
    if !is_done && mark.exists() && !adopts {
        // This folder saw it done: to take records over now would be to believe whoever undid it.
        return Err(Error::Forged(at.to_string()));
    }
    let mut origin = Origin::Proven;
    if !is_done || adopts {
        let taken = take_over(objects, prover, known.is_none() && !adopts).await?;
        origin = if taken == 0 && !is_there { Origin::New } else { Origin::TakenOver(taken) };
    }
    let master = path("master");
    match bytes(objects, &master).await? {
        None => {
            put(objects, prover, "master", &Master { check: master_check.to_owned() }, PutMode::Create)
                .await?;
        }
        Some(bytes) if prover.check(master.as_ref(), &bytes) != Proof::Holds => {
            return Err(Error::Forged(master.to_string()));
        }
        Some(_) => {}
    }
    if !is_done {
        let done = Proven { is_done: true, since_ns: Clock::now_ns() };
        put(objects, prover, "proven", &done, PutMode::Overwrite).await?;
    }
    remember(mark)
        .map_err(|error| Error::Unavailable(format!("{} cannot be written: {error}", mark.display())))?;
    Ok(origin)
}

/// Gives every record a proof that has none; returns how many.
async fn take_over(objects: &dyn ObjectStore, prover: &Prover, is_first: bool) -> Result<usize, Error> {
    let mut found = Vec::new();
    if bytes(objects, &path("master")).await?.is_some() {
        found.push(path("master"));
    }
    for folder in FOLDERS {
        found.extend(list(objects, folder).await?.into_iter().map(|(_, path)| path));
    }
    if is_first {
        // Proofs without the object that says so: it was taken away.
        for one in &found {
            let Some(bytes) = bytes(objects, one).await? else { continue };
            if prover.check(one.as_ref(), &bytes) != Proof::Absent {
                return Err(Error::Forged(path("proven").to_string()));
            }
        }
        if found.is_empty() {
            return Ok(0);
        }
        let begun = Proven { is_done: false, since_ns: Clock::now_ns() };
        put(objects, prover, "proven", &begun, PutMode::Create).await?;
    }
    let mut taken = 0;
    for one in found {
        let Some(body) = bytes(objects, &one).await? else { continue };
        match prover.check(one.as_ref(), &body) {
            Proof::Holds => continue,
            Proof::Broken => return Err(Error::Forged(one.to_string())),
            Proof::Absent => {}
        }
        let value: Value = serde_json::from_slice(&body).map_err(|_| Error::Corrupt(one.to_string()))?;
        if !value.is_object() {
            return Err(Error::Corrupt(one.to_string()));
        }
        let body = serde_json::to_vec(&value).expect("JSON that was read is written");
        let proven = prover.prove(one.as_ref(), &body, Clock::now_ns());
        objects.put(&one, PutPayload::from(proven)).await.map_err(|error| failed(&error))?;
        taken += 1;
    }
    Ok(taken)
}

async fn put<T: Serialize>(
    objects: &dyn ObjectStore,
    prover: &Prover,
    name: &str,
    value: &T,
    mode: PutMode,
) -> Result<(), Error> {
    let at = path(name);
    let body = serde_json::to_vec(value).expect("records are plain values with text keys");
    let bytes = prover.prove(at.as_ref(), &body, Clock::now_ns());
    let put = objects.put_opts(&at, PutPayload::from(bytes), PutOptions::from(mode)).await;
    put.map(drop).map_err(|error| failed(&error))
}

/// Writes the mark of the data folder, durably.
fn remember(mark: &FsPath) -> std::io::Result<()> {
    if mark.exists() {
        return Ok(());
    }
    let mut file = File::create_new(mark)?;
    file.write_all(b"every record below system/ has a proof of origin; do not delete\n")?;
    file.sync_all()?;
    mark.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests;
