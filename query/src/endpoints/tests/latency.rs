//! Percentiles of what is stored and what is hot.

use super::*;

fn measured(windows: &[(i64, std::ops::Range<i64>)]) -> Measurement {
    let mut recorder = Recorder::default();
    for (window, durations) in windows {
        for micros in durations.clone() {
            recorder.record("web", "GET /", micros % 10 == 0, window * WINDOW_NS, micros * 1_000);
        }
    }
    recorder.take()
}

// F32: what is stored and what is hot merge into the exact percentiles, within 0.1 %.
#[tokio::test]
async fn latency_merges_stored_and_hot() {
    let mut fixture = Fixture::new();
    let stored = |draft: &mut Draft| {
        for series in measured(&[(10, 1..4_001), (11, 4_001..6_001)]).series {
            let mut full = storage::latency::new_histogram();
            for (value, count) in &series.buckets {
                full.record_n(*value, u64::from(*count)).unwrap();
            }
            let mut bytes = Vec::new();
            let mut serializer = hdrhistogram::serialization::V2DeflateSerializer::new();
            hdrhistogram::serialization::Serializer::serialize(&mut serializer, &full, &mut bytes).unwrap();
            let count = i64::try_from(full.len()).unwrap();
            row(draft, series.window_start_ns, &series.source, |d| {
                d.set_text(Field::SourceDataset, "spans");
                d.set_text(Field::Operation, &series.operation);
                d.set_text(Field::Outcome, if series.is_error { "error" } else { "ok" });
                d.set_int(Field::WindowNs, WINDOW_NS);
                d.set_int(Field::Count, count);
                d.set_int(Field::ErrorCount, if series.is_error { count } else { 0 });
                d.set_bytes(Field::Histogram, &bytes);
            });
        }
    };
    fixture.table("a", "latency", Kind::Latency, &[(Sealed::Yes, &stored)]).await;
    fixture.hot_latency.push(measured(&[(11, 6_001..10_001)]).into());
    let near = |value: &Json, expected: f64| {
        let value = value.as_f64().unwrap();
        assert!((value - expected).abs() / expected <= 0.001, "{value} {expected}");
    };
    let reply = fixture.get(Endpoint::Latency, "", "q=0.5,0.95,0.99,1&step=1m").await.unwrap();
    assert_eq!((&reply["from"], &reply["to"]), (&Json::Null, &Json::Null));
    let series = &reply["series"][0];
    assert_eq!((series["source"].as_str(), series["operation"].as_str()), (Some("web"), Some("GET /")));
    assert_eq!((series["count"].as_u64(), series["error_count"].as_u64()), (Some(10_000), Some(1_000)));
    near(&series["quantiles"]["0.5"], 5_000e3);
    near(&series["quantiles"]["0.95"], 9_500e3);
    near(&series["quantiles"]["0.99"], 9_900e3);
    near(&series["quantiles"]["1"], 10_000e3);
    near(&series["max_ns"], 10_000e3);
    assert_eq!(series["points"].as_array().unwrap().len(), 2);
    assert_eq!(series["points"][0]["time"], "1970-01-01T00:10:00.000000000Z");
    assert_eq!(series["points"][1]["count"], 6_000);
    near(&series["points"][0]["quantiles"]["0.5"], 2_000e3);
    let reply = fixture.get(Endpoint::Latency, "", "from=610&to=660").await.unwrap();
    assert_eq!(
        (&reply["from"], &reply["series"][0]["count"]),
        (&json!("1970-01-01T00:10:00Z"), &json!(4_000))
    );
    assert!(reply["series"][0].get("points").is_none());
    for none in ["source=db", "operation=x", "from=720", "dataset=events"] {
        let reply = fixture.get(Endpoint::Latency, "", none).await.unwrap();
        assert_eq!(reply["series"], json!([]), "{none}");
    }
}

// B1: a reply has so many series, and one that would have more says so.
#[tokio::test]
async fn percentiles_are_of_so_many_series() {
    let mut fixture = Fixture::new();
    // A chunk opens fewer of its own, so there are several.
    for chunk in 0..4 {
        let mut recorder = Recorder::default();
        for at in 0..2_501 {
            recorder.record(&format!("web-{chunk}"), &at.to_string(), false, 0, 5);
        }
        fixture.hot_latency.push(recorder.take().into());
    }
    let told = fixture.get(Endpoint::Latency, "", "").await.map(|_| "a reply");
    assert_eq!(told.map_err(|refusal| (refusal.status, refusal.code)), Err((422, "query_limit")));
    assert!(fixture.get(Endpoint::Latency, "", "source=web-3").await.is_ok());
}
