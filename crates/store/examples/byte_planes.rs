//! Measures zstd over split byte planes of a store's K and V: `byte_planes STORE [BLOCKS]`. Prints for each
//! level the factor of compression and the rates in and out, and the rate of CRC-32, on one thread.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use hyperrag_core::{BlockKey, BlockRead, Slot};
use hyperrag_store::Store;

/// Returns the first bytes of all elements, then the second ones, and so on.
fn split(bytes: &[u8], planes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes.len()];
    let length = bytes.len() / planes;
    for (i, element) in bytes.chunks_exact(planes).enumerate() {
        for (plane, byte) in element.iter().enumerate() {
            out[plane * length + i] = *byte;
        }
    }
    out
}

fn join(bytes: &[u8], planes: usize, out: &mut [u8]) {
    let length = bytes.len() / planes;
    for (i, element) in out.chunks_exact_mut(planes).enumerate() {
        for (plane, byte) in element.iter_mut().enumerate() {
            *byte = bytes[plane * length + i];
        }
    }
}

/// Reads the layers of a store's first blocks.
fn layers(store: &Store, blocks: usize) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let mut layers = Vec::new();
    let layers_a_block = store.kv_shape().layers as usize;
    for record in &store.manifest().shards {
        for (slot, chunk) in (0..).map(Slot).zip(store.chunks(record.shard)?.chunks) {
            if layers.len() >= blocks * layers_a_block {
                return Ok(layers);
            }
            let key = BlockKey { shard: record.shard, slot, chunk: chunk.id };
            let block = store.get_many(&[key]).remove(0)?.ok_or("an absent block")?;
            layers.extend((0..layers_a_block).map(|layer| block.layer(layer).to_vec()));
        }
    }
    Ok(layers)
}

#[expect(clippy::print_stdout, reason = "the figures are what it is for")]
fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let root = arguments.next().ok_or("usage: byte_planes STORE [BLOCKS]")?;
    let blocks = arguments.next().map_or(Ok(40), |blocks| blocks.parse::<usize>())?;
    let store = Store::open(Path::new(&root))?;
    let layers = layers(&store, blocks)?;
    let bytes: usize = layers.iter().map(Vec::len).sum();
    let rate = |start: Instant| bytes as f64 / start.elapsed().as_secs_f64() / 1e9;
    let start = Instant::now();
    let sum = layers.iter().fold(0, |sum, layer| sum ^ crc32fast::hash(layer));
    let (element, crc) = (store.kv_shape().kv_dtype, rate(start));
    println!("{element}: {} layers, {bytes} bytes, CRC-32 {crc:.1} GB/s ({sum:08x})", layers.len());
    for (planes, level) in [(1, 1), (2, 1), (2, 3), (4, 1)] {
        let start = Instant::now();
        // Each plane by itself, so that it gets its own codes.
        let pack = |layer: &Vec<u8>| -> std::io::Result<Vec<Vec<u8>>> {
            let split = split(layer, planes);
            let planes = split.chunks(layer.len() / planes);
            planes.map(|plane| zstd::bulk::compress(plane, level)).collect()
        };
        let packed = layers.iter().map(pack).collect::<Result<Vec<_>, _>>()?;
        let (into, start) = (rate(start), Instant::now());
        let (mut whole, mut out) = (Vec::new(), Vec::new());
        for (packed, layer) in packed.iter().zip(&layers) {
            whole.clear();
            for plane in packed {
                whole.extend(zstd::bulk::decompress(plane, layer.len() / planes)?);
            }
            out.resize(layer.len(), 0);
            join(&whole, planes, &mut out);
            assert!(&out == layer, "what was packed");
        }
        let size: usize = packed.iter().flatten().map(Vec::len).sum();
        let (smaller, out) = (bytes as f64 / size as f64, rate(start));
        println!(
            "{planes} planes, level {level}: {smaller:.2} times smaller, {into:.2} GB/s in, {out:.2} GB/s out"
        );
    }
    Ok(())
}
