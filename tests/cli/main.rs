//! The program as its users run it, with the tiny model and without a network.

mod answer;
mod architectures;
mod bad_input;
mod buckets;
mod calibrated;
mod collection;
mod damage;
mod deploy;
mod device;
#[expect(dead_code, reason = "the torture tests use all of it")]
#[path = "../torture/disk.rs"]
mod disk;
mod docs;
mod edges;
mod eval;
mod export;
#[expect(dead_code, reason = "the tests of tiers use all of it")]
#[path = "../../crates/tiers/tests/support/fake_s3.rs"]
mod fake_s3;
mod far;
mod format;
mod fusion;
mod generations;
mod golden_bytes;
mod golden_changed;
mod golden_store;
mod hub;
mod index;
mod inputs;
mod jobs;
mod json;
mod language;
mod live;
mod models;
mod notes;
mod partition;
mod plain_files;
mod plan;
mod prose;
mod quality;
mod reader;
mod refused;
mod repair;
mod replicas;
mod resume;
mod room;
mod runs;
mod scorers;
mod seeded;
mod services;
mod signals;
mod started;
mod stdin;
mod support;
mod tables;
mod terminal;
mod tidy;
mod tiers;
mod told;
mod upgrade;
mod verify;
