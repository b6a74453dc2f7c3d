//! Tests of both decoders on the tiny seeded models.

mod architectures;
mod blocks;
#[path = "../../../../fuzz/changed.rs"]
mod changed;
mod cpu;
mod device;
mod digest;
mod folders;
mod fuzz;
mod generate;
mod scorers;
mod second_reference;
mod seeded;
mod split;
mod tokenizers;
mod variants;
