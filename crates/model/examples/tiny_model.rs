//! `tiny_model OUT.gguf [SEED]` writes the tiny seeded model of `testdata/`.
use std::fs::File;
use std::io::BufWriter;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or("usage: tiny_model OUT.gguf [SEED]")?;
    let seed = arguments.next().map_or(Ok(0), |seed| seed.parse())?;
    hyperrag_model::tiny::write(seed, &mut BufWriter::new(File::create(path)?))?;
    Ok(())
}
