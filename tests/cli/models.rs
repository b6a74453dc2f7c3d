//! Models with faulty files, and machines that lack the memory or the threads.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;

use hyperrag_model::testing::tiny::Tiny;

use crate::support::{FAILED, LITTLE_MEMORY, Scratch, testdata};

/// Writes a folder of the tiny model, as transformers saves one.
fn folder(scratch: &Scratch, name: &str) {
    Tiny::new("llama", 0).unwrap().write_folder(&scratch.path(name), 1).unwrap();
}

#[test]
fn files_that_are_none_are_refused() {
    let scratch = Scratch::new();
    let fifo = |name: &str| {
        let _ = fs::remove_file(scratch.path(name));
        let made = Command::new("mkfifo").arg(scratch.path(name)).status().unwrap();
        assert!(made.success());
    };
    let refused = |line: &str, words: &[&str]| {
        let outcome = scratch.check(line, scratch.soon_after(LITTLE_MEMORY, line));
        assert_eq!(outcome.code, FAILED, "{line}: {}", outcome.stderr);
        outcome.says(words);
    };
    fifo("model.gguf");
    refused("model info model.gguf", &["model.gguf", "it is a FIFO, not a file"]);
    refused("model info /dev/zero", &["/dev/zero", "it is a device, not a file"]);
    let _socket = UnixListener::bind(scratch.path("socket")).unwrap();
    refused("model info socket", &["it is a socket, not a file"]);
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"] {
        folder(&scratch, "m");
        fifo(&format!("m/{name}"));
        refused("build CORPUS --store s --model m", &[name, "it is a FIFO, not a file"]);
        fs::remove_dir_all(scratch.path("m")).unwrap();
    }
    folder(&scratch, "m");
    fs::remove_file(scratch.path("m/config.json")).unwrap();
    fs::create_dir(scratch.path("m/config.json")).unwrap();
    refused("model info m", &["config.json", "it is a folder, not a file"]);
    fifo("profile.toml");
    refused("build CORPUS --store s TINY --profile profile.toml", &["profile.toml", "not a file"]);
}

#[test]
fn headers_are_bounded() {
    let scratch = Scratch::new();
    // An array of as many bytes as the file has, each of which was a value of 32 bytes; none is on
    // disk.
    let length = 200_u64 << 20;
    let mut header = [&b"GGUF\x03\0\0\0"[..], &0_u64.to_le_bytes(), &1_u64.to_le_bytes()].concat();
    header.extend(
        [&1_u64.to_le_bytes()[..], b"k", &9_u32.to_le_bytes(), &0_u32.to_le_bytes()].concat(),
    );
    header.extend(length.to_le_bytes());
    fs::write(scratch.path("array.gguf"), &header).unwrap();
    let array = fs::OpenOptions::new().append(true).open(scratch.path("array.gguf")).unwrap();
    array.set_len(length + 64).unwrap();
    // A header of JSON with as many values.
    folder(&scratch, "m");
    let values = format!("{{\"x\":[{}0]}}", "0,".repeat(8 << 20));
    let weights = [&(values.len() as u64).to_le_bytes()[..], values.as_bytes()].concat();
    scratch.write("m/model.safetensors", weights);
    folder(&scratch, "n");
    scratch.write("n/config.json", &values);
    for (model, words) in [
        ("array.gguf", "its header is longer than 134217728 bytes"),
        ("m", "it has more than 4194304 values"),
        ("n", "it has more than 4194304 values"),
    ] {
        let output = scratch.soon_after("ulimit -v 1500000", &format!("model info {model}"));
        let outcome = scratch.check(model, output);
        assert_eq!(outcome.code, FAILED, "{model}: {}", outcome.stderr);
        outcome.says(&[model, words]);
    }
}

#[test]
fn chat_templates_are_bounded() {
    let scratch = Scratch::new();
    folder(&scratch, "m");
    scratch.ok("build CORPUS --store s --model m --profile plain --limit 4");
    let line = "answer --store s --model m --profile plain bees";
    let doubled = "{% set ns = namespace(x='xx') %}{% for i in range(30) %}\
        {% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ messages[0].content }}";
    let nested = "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}\
        {% set ns.x = [ns.x] %}{% endfor %}{{ messages[0].content }}";
    for (template, words) in [
        (doubled.to_owned(), "fuel"),
        (nested.to_owned(), "fuel"),
        ("{{ messages[0].content }}".repeat(4000), "100000 bytes"),
    ] {
        scratch.write("m/chat_template.jinja", template);
        let outcome = scratch.ends(FAILED, line);
        outcome.says(&["m/chat_template.jinja", "the chat template", words]);
    }
    scratch.write("m/chat_template.jinja", "Q: {{ messages[0].content }}\nA:");
    scratch.ok(line);
}

#[test]
fn threads_that_do_not_start_are_an_error() {
    let scratch = Scratch::new();
    scratch.ok("build CORPUS --store s TINY --limit 4");
    for line in [
        "build CORPUS --store t TINY",
        "query --store s TINY bees",
        "verify --store s",
        "model info TINY",
    ] {
        // A stack that no machine has: no thread starts.
        let line = line.replace("info TINY", &format!("info {}", testdata("tiny.gguf")));
        let mut command = scratch.command(&line);
        let output = command.env("RUST_MIN_STACK", (1_u64 << 46).to_string()).output().unwrap();
        let outcome = scratch.check(&line, output);
        assert_eq!(outcome.code, FAILED, "{line}: {}", outcome.stderr);
        outcome.says(&["threads cannot be started"]);
        assert_eq!(outcome.stderr.lines().count(), 1, "{}", outcome.stderr);
    }
}
