//! Proof of origin: what this deployment wrote is told from what somebody put into its bucket.
//!
//! A record ends in the time it was written at and a keyed hash over its path and everything before the hash. The key
//! is derived from the master key, which no bucket holds: whoever may edit a record cannot prove the edit, and cannot
//! put a proven record in another's place. Readers that know nothing of it see two more fields.

use zeroize::Zeroizing;

/// What stands between a record's own text and the hash.
const MARK: &str = ",\"mac\":\"";

/// Bytes of the hash as text.
const HEX_BYTES: usize = 2 * blake3::OUT_LEN;

/// Bytes that end every record that is proven: the mark, the hash, and what closes the record.
const TAIL_BYTES: usize = MARK.len() + HEX_BYTES + 2;

/// Whether a record is what this deployment wrote there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It is.
    Holds,
    /// It says nothing of it, as every record did before.
    Absent,
    /// It says so and is not.
    Broken,
}

/// Proves records, and checks their proofs.
#[derive(Clone)]
pub struct Prover {
    key: Zeroizing<[u8; 32]>,
}

impl Prover {
    /// Proves under `key`, which serves nothing else.
    #[must_use]
    pub fn new(key: Zeroizing<[u8; 32]>) -> Self {
        Self { key }
    }

    fn hash(&self, path: &str, text: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        // With its length: no part of the path can pass for a part of the text.
        hasher.update(&(path.len() as u64).to_le_bytes()).update(path.as_bytes()).update(text);
        hasher.finalize()
    }

    /// The JSON object `body` with its proof, as it is to lie under `path`.
    #[must_use]
    pub fn prove(&self, path: &str, body: &[u8], written_ns: i64) -> Vec<u8> {
        debug_assert!(body.first() == Some(&b'{') && body.last() == Some(&b'}'), "a record is an object");
        let mut text = body.to_vec();
        text.pop();
        if text.len() > 1 {
            text.push(b',');
        }
        text.extend_from_slice(format!("\"written_ns\":{written_ns}").as_bytes());
        let hash = self.hash(path, &text);
        text.extend_from_slice(MARK.as_bytes());
        text.extend_from_slice(hash.to_hex().as_bytes());
        text.extend_from_slice(b"\"}");
        text
    }

    /// Checks what lies under `path`.
    #[must_use]
    pub fn check(&self, path: &str, bytes: &[u8]) -> Proof {
        let Some(at) = bytes.len().checked_sub(TAIL_BYTES) else { return Proof::Absent };
        let (text, tail) = bytes.split_at(at);
        let hash = tail.strip_prefix(MARK.as_bytes()).and_then(|tail| tail.strip_suffix(b"\"}"));
        let Some(hash) = hash else { return Proof::Absent };
        // `Hash` compares in constant time.
        match blake3::Hash::from_hex(hash) {
            Ok(hash) if hash == self.hash(path, text) => Proof::Holds,
            _ => Proof::Broken,
        }
    }
}

#[cfg(test)]
mod tests {
    use zeroize::Zeroizing;

    use super::{Proof, Prover};

    fn prover(byte: u8) -> Prover {
        Prover::new(Zeroizing::new([byte; 32]))
    }

    #[test]
    fn no_edit_of_a_record_passes() {
        for body in [&b"{}"[..], br#"{"id":"a","roles":["ingest"]}"#] {
            let proven = prover(1).prove("system/keys/a.json", body, 7);
            assert_eq!(prover(1).check("system/keys/a.json", &proven), Proof::Holds);
            assert!(serde_json::from_slice::<serde_json::Value>(&proven).expect("JSON")["mac"].is_string());
            assert_eq!(prover(1).check("system/keys/b.json", &proven), Proof::Broken, "another's place");
            assert_eq!(prover(2).check("system/keys/a.json", &proven), Proof::Broken, "another deployment");
            for at in 0..proven.len() {
                let mut edited = proven.clone();
                edited[at] ^= 1;
                assert_ne!(prover(1).check("system/keys/a.json", &edited), Proof::Holds, "at {at}");
                assert_ne!(prover(1).check("system/keys/a.json", &proven[..at]), Proof::Holds, "cut at {at}");
            }
            assert_eq!(prover(1).check("system/keys/a.json", body), Proof::Absent);
        }
    }
}
