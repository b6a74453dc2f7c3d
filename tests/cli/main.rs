//! The program as its users run it, with the tiny model and without a network.

mod answer;
mod architectures;
mod bad_input;
mod calibrated;
mod damage;
mod device;
mod eval;
mod format;
mod fusion;
mod golden_changed;
mod golden_store;
mod hub;
mod index;
mod jobs;
mod language;
mod live;
mod quality;
mod reader;
mod repair;
mod resume;
mod room;
mod scorers;
mod seeded;
mod support;
mod tidy;
mod verify;
