//! Stored bytes that are not what was written (F40).

use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::*;

/// Whatever bit of a stored object is flipped: the reply is right to the last byte, or an error names the object.
/// Nothing of the other objects is left out in silence, and what was mended is read again.
#[tokio::test]
async fn a_flipped_bit_never_alters_an_answer() {
    let fixture = shop().await;
    let right = fixture.get(Endpoint::Events, "", "").await.unwrap();
    let right_sql = fixture.sql("select * from events order by seq").await.unwrap();
    let paths = ["0000", "0001"].map(|name| format!("tenant/a/events/date=2026-01-02/{name}.parquet"));
    let mut random = 0x5851_f42d_4c95_7f2d_u64;
    let mut errors = 0;
    for at in 0..250 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let path = &paths[at % 2];
        let place = Path::from(path.as_str());
        let bytes = fixture.store.get(&place).await.unwrap().bytes().await.unwrap();
        let mut flipped = bytes.to_vec();
        let byte = (random >> 20) as usize % flipped.len();
        flipped[byte] ^= 1 << (random >> 61);
        fixture.store.put(&place, PutPayload::from(flipped)).await.unwrap();
        let found = if at % 5 == 0 {
            (fixture.sql("select * from events order by seq").await, &right_sql)
        } else {
            (fixture.get(Endpoint::Events, "", "").await, &right)
        };
        match found {
            (Ok(found), right) => assert_eq!(found, *right, "byte {byte} of {path}"),
            (Err(refusal), _) => {
                assert_eq!((refusal.status, refusal.code), (500, "corrupt_object"), "{}", refusal.detail);
                assert!(
                    refusal.detail.contains(path.strip_prefix("tenant/a/").unwrap()),
                    "{}",
                    refusal.detail
                );
                errors += 1;
            }
        }
        fixture.store.put(&place, PutPayload::from_bytes(bytes)).await.unwrap();
    }
    assert!(errors > 200, "{errors} of 250 were seen");
    assert_eq!(fixture.get(Endpoint::Events, "", "").await.unwrap(), right);
}

/// An object that is gone, or shorter, is named too.
#[tokio::test]
async fn a_shortened_object_is_named() {
    let fixture = shop().await;
    for path in ["0000", "0001"].map(|name| format!("tenant/a/events/date=2026-01-02/{name}.parquet")) {
        let place = Path::from(path.as_str());
        let bytes = fixture.store.get(&place).await.unwrap().bytes().await.unwrap();
        for len in [0, 4, bytes.len() / 2, bytes.len() - 1] {
            fixture.store.put(&place, PutPayload::from_bytes(bytes.slice(..len))).await.unwrap();
            let refusal = fixture.get(Endpoint::Events, "", "").await.unwrap_err();
            assert_eq!((refusal.status, refusal.code), (500, "corrupt_object"), "{}", refusal.detail);
            assert!(refusal.detail.contains(path.strip_prefix("tenant/a/").unwrap()), "{}", refusal.detail);
        }
        fixture.store.put(&place, PutPayload::from_bytes(bytes)).await.unwrap();
    }
    assert_eq!(fixture.get(Endpoint::Events, "", "").await.unwrap()["events"].as_array().unwrap().len(), 5);
}
