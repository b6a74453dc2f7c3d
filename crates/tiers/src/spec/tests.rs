//! Tests of words for tiers: names, refusals, and that nothing secret is repeated.

use std::time::Duration;

use hyperrag_core::TierRole;
use proptest::prelude::*;

use super::TierSpec;
use super::error::SpecError;
use super::list::parse_tiers;
use super::quantity::{Amount, parse_bytes};
use super::url::{ClaimPlace, ReadFrom, RedisSpec, S3Spec};

fn parsed(text: &str) -> TierSpec {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> String {
    match text.parse::<TierSpec>() {
        Err(error) => error.to_string(),
        Ok(spec) => panic!("{text} is {spec:?}"),
    }
}

#[test]
fn tiers_of_this_machine_are_named() {
    assert_eq!(parsed("ram:4GiB"), TierSpec::Ram { bytes: 4 << 30 });
    assert_eq!(parsed(" device:20GiB "), TierSpec::Device { bytes: 20 << 30 });
    assert_eq!(parsed("store"), TierSpec::Store);
    let cache = |folder: &str, bytes| TierSpec::Cache { folder: folder.into(), bytes };
    assert_eq!(parsed("cache:/nvme/hr:400GiB"), cache("/nvme/hr", 400 << 30));
    assert_eq!(parsed("cache:/a:b:c:1KB"), cache("/a:b:c", 1000));
    assert_eq!(parsed("cache:relative:1"), cache("relative", 1));
    for text in ["/data/copy", "folder:/data/copy", "file:///data/copy"] {
        assert_eq!(parsed(text), TierSpec::Folder { folder: "/data/copy".into() });
    }
    assert_eq!(parsed("/a:b?c"), TierSpec::Folder { folder: "/a:b?c".into() });
}

#[test]
fn servers_are_named_with_their_options() {
    let text = "rediss://kv1:7000,kv2:7000?role=cache&copies=1&prefix=hr:1&ttl=30d&timeout=400ms\
                &inflight=2MiB&readers=master";
    let redis = RedisSpec {
        tls: true,
        nodes: vec!["kv1:7000".to_owned(), "kv2:7000".to_owned()],
        role: Some(TierRole::Cache),
        copies: Some(1),
        prefix: Some("hr:1".to_owned()),
        ttl: Some(Duration::from_secs(30 * 86_400)),
        timeout: Some(Duration::from_millis(400)),
        in_flight_bytes: Some(2 << 20),
        readers: Some(ReadFrom::Masters),
    };
    assert_eq!(parsed(text), TierSpec::Redis(redis));
    assert_eq!(parsed(text).to_string(), text);
    let plain = parsed("redis://[::1]:7000,localhost/");
    assert_eq!(plain.to_string(), "redis://[::1]:7000,localhost");

    let text =
        "s3://bucket/a/prefix?region=eu-central-1&endpoint=http://127.0.0.1:8333&claims=folder";
    let s3 = S3Spec {
        bucket: "bucket".to_owned(),
        prefix: "a/prefix".to_owned(),
        region: Some("eu-central-1".to_owned()),
        endpoint: Some("http://127.0.0.1:8333".to_owned()),
        claims: Some(ClaimPlace::Folder),
    };
    assert_eq!(parsed(text), TierSpec::S3(s3));
    assert_eq!(parsed(text).to_string(), text);
    assert_eq!(parsed("s3://bucket/").to_string(), "s3://bucket");
}

#[test]
fn sizes_have_units() {
    for (text, bytes) in [
        ("1", 1),
        ("7B", 7),
        ("3KiB", 3 << 10),
        ("3kib", 3 << 10),
        ("3 MiB", 3 << 20),
        ("500G", 500 << 30),
        ("2TiB", 2 << 40),
        ("3KB", 3000),
        ("3MB", 3_000_000),
        ("3GB", 3_000_000_000),
    ] {
        assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        assert_eq!(parse_bytes(&Amount(bytes).to_string()), Ok(bytes), "{text}");
    }
    for text in
        ["", "0", "-1", "+1", "1.5GiB", "GiB", "4 Gi", "4GiBs", "99999999999TiB", "2000000TiB"]
    {
        let said = parse_bytes(text).unwrap_err().to_string();
        assert!(said.contains("KiB, MiB, GiB or TiB"), "{said}");
    }
}

#[test]
fn what_is_wrong_is_said_with_what_is_right() {
    for (text, said) in [
        ("", "a tier is missing"),
        ("ssd:4GiB", "ram:SIZE"),
        ("memcached://host", "\"memcached://host\" is no tier"),
        ("ram:lots", "\"lots\" is no size"),
        ("ram", "is no tier"),
        ("cache:400GiB", "cache:FOLDER:SIZE"),
        ("cache::4GiB", "cache:FOLDER:SIZE"),
        ("cache:/nvme/hr", "names no folder"),
        ("folder:", "names no folder"),
        ("file://host/path", "file:///FOLDER or folder:FOLDER"),
        ("file:///a%20b", "folder:FOLDER"),
        ("redis:host", "is no tier"),
        ("redis://", "\"\" is no server"),
        ("redis://a:1,,b:2", "\"\" is no server"),
        ("redis://a:70000", "\"a:70000\" is no server"),
        ("redis://a:+1", "is no server"),
        ("redis://a:", "is no server"),
        ("redis://[::1", "is no server"),
        ("redis://[::1]7", "is no server"),
        ("redis://a:1/0", "is no server"),
        ("redis://a:1?rol=home", "it has role, copies, prefix, ttl, timeout, inflight and readers"),
        ("redis://a:1?role=main", "role cannot be \"main\": use home or cache"),
        ("redis://a:1?role=home&role=home", "role stands twice"),
        ("redis://a:1?role", "NAME=VALUE"),
        ("redis://a:1?role=", "NAME=VALUE"),
        ("redis://a:1?copies=-1", "copies cannot be \"-1\": use a number"),
        ("redis://a:1?prefix={x}", "prefix cannot be"),
        ("redis://a:1?ttl=soon", "ttl cannot be \"soon\": use a time"),
        ("redis://a:1?timeout=0", "timeout cannot be"),
        ("redis://a:1?inflight=x", "inflight cannot be \"x\": use a size"),
        ("redis://a:1?readers=all", "use replica or master"),
        ("s3://", "s3://BUCKET/PREFIX"),
        ("s3://ab/prefix", "3 to 63"),
        ("s3://Bucket/prefix", "small letters"),
        ("s3://bucket/../prefix", "is no place"),
        ("s3://bucket/a//b", "is no place"),
        ("s3://bucket/p?acl=x", "it has region, endpoint and claims"),
        ("s3://bucket/p?endpoint=ftp://x", "https://HOST:PORT"),
        ("s3://bucket/p?claims=zookeeper", "conditional, redis or folder"),
        ("ram:4GiB\n", "x"),
        ("/a\u{7}b", "control character"),
    ] {
        match text {
            // Signs at the ends are left out.
            "ram:4GiB\n" => assert_eq!(parsed(text), TierSpec::Ram { bytes: 4 << 30 }),
            _ => assert!(refused(text).contains(said), "{text}: {}", refused(text)),
        }
    }
}

#[test]
fn secrets_in_urls_are_refused_and_not_repeated() {
    for (text, variable) in [
        ("redis://user:hunter2@host:7000", "HYPERRAG_REDIS_PASSWORD"),
        ("rediss://:hunter2@host:7000,other:1?role=home", "HYPERRAG_REDIS_PASSWORD"),
        ("redis://a:1,hunter2@host:7000", "HYPERRAG_REDIS_USERNAME"),
        ("s3://KEY:hunter2@bucket/prefix", "AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket/p?endpoint=https://key:hunter2@host", "AWS_ACCESS_KEY_ID"),
    ] {
        let said = refused(text);
        assert!(said.contains(variable) && !said.contains("hunter2"), "{said}");
    }
    for text in [
        "redis://host?password=hunter2",
        "redis://host?hunter2",
        "s3://bucket?secret=hunter2",
        "reddis://user:hunter2@host",
        "ram:hunter2@x",
        "user:hunter2@host",
        "redis://host?role=x:hunter2@y",
        "hunter2@host",
    ] {
        let said = refused(text);
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn lists_are_split_where_tiers_start() {
    let kinds = |list: &str| -> Vec<String> {
        let tiers = parse_tiers(list).unwrap_or_else(|error| panic!("{list}: {error}"));
        tiers.iter().map(ToString::to_string).collect()
    };
    let all = "device:20GiB,ram:4GiB,cache:/nvme/hr:400GiB,store,rediss://kv1:7000,kv2:7000?role=home\
               &copies=1,s3://bucket/prefix,folder:/copy";
    assert_eq!(kinds(all).join(","), all);
    assert_eq!(kinds(all).len(), 7);
    assert_eq!(kinds("redis://a:1,b:2,store,redis://c"), ["redis://a:1,b:2", "store", "redis://c"]);
    assert_eq!(kinds("redis://store1:1,store2:2"), ["redis://store1:1,store2:2"]);
    assert_eq!(kinds("redis://a, b ,/copy"), ["redis://a,b", "folder:/copy"]);
    assert_eq!(kinds("cache:/a,b:1GiB,ram:1"), ["cache:/a,b:1GiB", "ram:1"]);
    assert_eq!(kinds(" ram:1GiB , store "), ["ram:1GiB", "store"]);
    for list in ["", ",", "store,", "ram:1,,store", "ram:1,disk", "store,b:7000", "s3://bucket,b"] {
        assert!(parse_tiers(list).is_err(), "{list}");
    }
    let said = parse_tiers("ram:1,disk").unwrap_err().to_string();
    assert!(said.contains("\"disk\" is no tier"), "{said}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_text_is_refused_or_read_back(text in any::<String>()) {
        read_back(&text)?;
    }

    #[test]
    fn texts_like_tiers_are_refused_or_read_back(
        start in "(ram:|device:|cache:/?|folder:|file:///|/|rediss?://|s3://|store)",
        middle in "[a-z0-9.:,/\\[\\]@%-]{0,20}",
        end in "(:?[0-9]{1,14}([KMGT]i?B?)?)?([?&](role=home|copies=[0-9]|ttl=[0-9]{1,6}[dhms]?|\
                inflight=[0-9]{1,9}(MB|KiB)?|region=eu|endpoint=http://[a-z:0-9]{1,9}|claims=redis)){0,3}",
    ) {
        read_back(&format!("{start}{middle}{end}"))?;
    }

    #[test]
    fn lists_are_refused_or_read_back(
        tiers in prop::collection::vec(
            "(ram:[1-9]GiB|store|cache:/[a-z]{1,3}:[1-9]TB|redis://[a-z]{1,3}(,[a-z]{1,3}:[1-9]{1,4}){0,2}\
             (\\?role=(home|cache))?|s3://[a-z]{3,9}(/[a-z]{1,3})?|folder:/[a-z]{1,4})",
            1..6,
        ),
    ) {
        let all = parse_tiers(&tiers.join(",")).unwrap();
        let each: Vec<TierSpec> = tiers.iter().map(|tier| parsed(tier)).collect();
        prop_assert_eq!(&all, &each);
        let said: Vec<String> = all.iter().map(ToString::to_string).collect();
        prop_assert_eq!(parse_tiers(&said.join(",")).unwrap(), each);
    }
}

fn read_back(text: &str) -> Result<(), TestCaseError> {
    if let Ok(spec) = text.parse::<TierSpec>() {
        let said = spec.to_string();
        let again: Result<TierSpec, SpecError> = said.parse();
        prop_assert_eq!(again, Ok(spec), "{}", said);
    }
    // No text makes it panic.
    let _ = parse_tiers(text);
    Ok(())
}
