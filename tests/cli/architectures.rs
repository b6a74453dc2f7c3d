//! Stores of every architecture, from a GGUF and from a folder: reuse equals recompute to the bit, and
//! no other model reads them.

use std::fs::File;
use std::io::BufWriter;

use hyperrag_model::testing::tiny::{NAMES, Tiny};

use crate::support::{MISMATCH, Scratch, jsonl, passages, ranked};

#[test]
fn a_store_of_each_is_read_by_its_own_model_alone() {
    let scratch = Scratch::new();
    scratch.write("corpus.jsonl", jsonl(&passages()[..6]));
    for name in NAMES {
        let tiny = Tiny::new(name, 0).unwrap();
        let file = File::create(scratch.path(&format!("{name}.gguf"))).unwrap();
        tiny.write_gguf(&mut BufWriter::new(file)).unwrap();
        tiny.write_folder(&scratch.path(name), 2).unwrap();
        for model in [format!("{name}.gguf"), name.to_owned()] {
            scratch.ok(&format!("build corpus.jsonl --store {model}-store --model {model}"));
            let query = format!("query --store {model}-store --model {model} --json honeybees");
            let reused = ranked(&scratch.ok(&query));
            assert!(!reused[0].1.is_empty(), "{model}");
            assert_eq!(reused, ranked(&scratch.ok(&format!("{query} --recompute"))), "{model}");
        }
    }
    for (i, stored) in NAMES.iter().enumerate() {
        let contents = scratch.contents(&format!("{stored}.gguf-store"));
        for (j, other) in NAMES.iter().enumerate() {
            // The folder has the numbers of the GGUF, in other files.
            let other = if i == j { (*other).to_owned() } else { format!("{other}.gguf") };
            let query = format!("query --store {stored}.gguf-store --model {other} honeybees");
            scratch.ends(MISMATCH, &query).says(&["store was made with", "in use is"]);
        }
        assert_eq!(scratch.contents(&format!("{stored}.gguf-store")), contents);
    }
}
