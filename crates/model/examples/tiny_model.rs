//! Writes tiny seeded models: `OUT.gguf [SEED]` gives the llama of `testdata/`, `OUT.gguf --model NAME`
//! another one, `FOLDER --folder --model NAME` one in safetensors, `--files N` splits its weights.
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;

use hyperrag_model::testing::tiny::{NAMES, Tiny};

const USAGE: &str = "usage: tiny_model OUT [SEED] [--model NAME] [--folder] [--files N]";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().ok_or(USAGE)?);
    let (mut seed, mut name, mut folder, mut files) = (0, "llama".to_owned(), false, 1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--model" => name = arguments.next().ok_or(USAGE)?,
            "--folder" => folder = true,
            "--files" => files = arguments.next().ok_or(USAGE)?.parse()?,
            number => seed = number.parse().map_err(|_| USAGE)?,
        }
    }
    let unknown = || format!("there is no tiny {name}; there are {}", NAMES.join(", "));
    let tiny = Tiny::new(&name, seed).ok_or_else(unknown)?;
    match folder {
        true => tiny.write_folder(&path, files)?,
        false => tiny.write_gguf(&mut BufWriter::new(File::create(path)?))?,
    }
    Ok(())
}
