//! Claims on spans in an object store that answers wrongly, over the real client.

#[expect(dead_code, reason = "the tests of tiers use all of it")]
#[path = "../../tiers/tests/support/fake_s3.rs"]
mod fake_s3;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use fake_s3::{BUCKET, FakeS3, Fault, KEY};
use hyperrag_engine::build::build_place::BuildPlace;
use hyperrag_engine::build::claims::{Claim, Claims};
use hyperrag_tiers::{ObjectLogin, ObjectOptions, ObjectTier};

const WORKERS: u32 = 16;
const SPANS: u32 = 100;

/// Opens the server's bucket as a worker of its own would.
fn place(server: &FakeS3) -> BuildPlace {
    let options = ObjectOptions {
        endpoint: Some(server.endpoint.clone()),
        allow_http: true,
        login: ObjectLogin::Keys {
            access_key: KEY.to_owned(),
            secret_key: "secret".to_owned(),
            session_token: None,
        },
        patience: Duration::from_secs(20),
        ..ObjectOptions::new(format!("s3://{BUCKET}/pre/fix"))
    };
    BuildPlace::of(Arc::new(ObjectTier::open(&options).unwrap()), "a bucket")
}

/// Builds what nobody builds, until all is done.
fn work(place: &BuildPlace, worker: u32, built: &[AtomicU32]) {
    let mut claims = Claims::new(place, SPANS, Duration::from_secs(86_400));
    let first = worker * SPANS / WORKERS;
    let mut left = 1;
    while left > 0 {
        left = 0;
        for span in (first..SPANS).chain(0..first) {
            match claims.claim(span).unwrap() {
                Claim::Done => {}
                Claim::Busy => left += 1,
                Claim::Own(own) => {
                    let count = || built[span as usize].fetch_add(1, Ordering::SeqCst);
                    claims.build(own, || Ok::<u32, ()>(count())).unwrap();
                    claims.finish(span, format!("result of {span}").as_bytes()).unwrap();
                }
            }
        }
    }
}

#[test]
fn each_span_is_built_once_though_the_object_store_answers_wrongly() {
    let server = FakeS3::start(7);
    let places: Vec<BuildPlace> = (0..WORKERS).map(|_| place(&server)).collect();
    Claims::new(&places[0], 1, Duration::from_secs(1)).check_place().unwrap();
    server.fail(
        100,
        &[
            Fault::Landed(500),
            Fault::Landed(409),
            Fault::Status(409),
            Fault::Status(500),
            Fault::Status(503),
            Fault::Drop,
            Fault::LandedDrop,
        ],
    );
    let built: Vec<AtomicU32> = (0..SPANS).map(|_| AtomicU32::new(0)).collect();
    thread::scope(|scope| {
        for (worker, place) in (0..WORKERS).zip(&places) {
            let built = &built;
            scope.spawn(move || work(place, worker, built));
        }
    });
    let built: Vec<u32> = built.into_iter().map(AtomicU32::into_inner).collect();
    assert_eq!(built, vec![1; SPANS as usize]);
    assert!(server.faults(|_| true) > 100, "{}", server.faults(|_| true));
    assert!(server.faults(|fault| matches!(fault, Fault::Landed(_))) > 10);
}
