//! Models of the Hugging Face hub, from a server on this machine that speaks like the hub.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use hyperrag_model::testing::tiny::Tiny;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{FAILED, Outcome, Scratch};

const FIRST: &str = "1111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222";
const TOKEN: &str = "secret";

/// A hub with the models `org/tiny`, in safetensors, and `org/ggufs`.
struct Hub {
    files: HashMap<String, Vec<u8>>,
    /// Commit of `main`.
    main: &'static str,
    /// Whether the hub states another SHA-256 than files have.
    lies: bool,
    /// Whether the hub is a mirror that names no bytes and states no lengths.
    untagged: bool,
    /// Number of requests that the hub is too busy for, and the answer to these.
    busy: (usize, &'static str),
    /// Files that were requested.
    asked: Vec<String>,
}

impl Hub {
    /// Serves until the test ends. Returns its address too.
    fn serve(folder: &Path) -> (String, Arc<Mutex<Self>>) {
        let mut files = HashMap::new();
        Tiny::new("qwen3", 0).unwrap().write_folder(&folder.join("tiny"), 2).unwrap();
        for entry in fs::read_dir(folder.join("tiny")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            files.insert(format!("org/tiny/{name}"), fs::read(&path).unwrap());
        }
        files.insert("org/tiny/README.md".to_owned(), b"# Tiny".to_vec());
        for name in ["a.gguf", "sub/b.gguf"] {
            let bytes = fs::read(crate::support::testdata("tiny.gguf")).unwrap();
            files.insert(format!("org/ggufs/{name}"), bytes);
        }
        let hub = Arc::new(Mutex::new(Self {
            files,
            main: FIRST,
            lies: false,
            untagged: false,
            busy: (0, ""),
            asked: Vec::new(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let served = Arc::clone(&hub);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                served.lock().unwrap().answer(stream.unwrap());
            }
        });
        (address, hub)
    }

    fn answer(&mut self, stream: TcpStream) {
        let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
        let request = lines.next().unwrap_or_default();
        let headers: Vec<String> =
            lines.take_while(|line| !line.is_empty()).map(|line| line.to_lowercase()).collect();
        let path = request.split(' ').nth(1).unwrap_or_default();
        let authorized = headers.contains(&format!("authorization: bearer {TOKEN}"));
        let answer = match authorized {
            _ if self.busy.0 > 0 => {
                self.busy.0 -= 1;
                status(self.busy.1)
            }
            true => self.found(path, &headers).unwrap_or_else(|| status("404 Not Found")),
            false => status("401 Unauthorized"),
        };
        // A client that requests the first byte hangs up after it.
        let _ = (&stream).write_all(&answer);
    }

    fn found(&mut self, path: &str, headers: &[String]) -> Option<Vec<u8>> {
        let commit = |revision: &str| match revision {
            "main" => Some(self.main),
            _ => [FIRST, SECOND].into_iter().find(|commit| *commit == revision),
        };
        if let Some(rest) = path.strip_prefix("/api/models/") {
            let (id, revision) = rest.split_once("/revision/")?;
            let (revision, stated) = match revision.split_once("?blobs=true") {
                Some((revision, "")) => (revision, !self.untagged),
                _ => (revision, false),
            };
            let files = self.files.iter().filter_map(|(name, bytes)| {
                Some((name.strip_prefix(id)?.strip_prefix('/')?, bytes.len()))
            });
            let siblings = files.map(|(name, bytes)| match stated {
                true => json!({"rfilename": name, "size": bytes}),
                false => json!({"rfilename": name}),
            });
            let siblings: Vec<Value> = siblings.collect();
            if siblings.is_empty() {
                return None;
            }
            let body = json!({"sha": commit(revision)?, "siblings": siblings}).to_string();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n", body.len());
            return Some(format!("{head}connection: close\r\n\r\n{body}").into_bytes());
        }
        let (id, rest) = path.strip_prefix('/')?.split_once("/resolve/")?;
        let (revision, name) = rest.split_once('/')?;
        let commit = commit(revision)?;
        let body = self.files.get(&format!("{id}/{name}"))?;
        self.asked.push(name.to_owned());
        let mut sha256: String = Sha256::digest(body).iter().map(|b| format!("{b:02x}")).collect();
        if self.lies {
            sha256 = "0".repeat(64);
        }
        let range = headers.iter().find_map(|header| header.strip_prefix("range: bytes="))?;
        let (from, to) = range.split_once('-')?;
        let from: usize = from.parse().ok()?;
        let to = to.parse().map_or(body.len(), |to: usize| to + 1).min(body.len());
        let tag = match self.untagged {
            true => String::new(),
            false => format!("etag: \"{sha256}\"\r\n"),
        };
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\ncontent-range: bytes {from}-{}/{}\r\ncontent-length: \
             {}\r\nx-repo-commit: {commit}\r\n{tag}connection: close\r\n\r\n",
            to - 1,
            body.len(),
            to - from
        );
        Some([head.as_bytes(), &body[from..to]].concat())
    }
}

fn status(status: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes()
}

/// Returns the program with this hub; without an address it is offline.
fn command(scratch: &Scratch, address: Option<&str>, token: &str, line: &str) -> Command {
    let mut command = scratch.command(line);
    for name in
        ["HF_HUB_CACHE", "HF_TOKEN_PATH", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]
    {
        command.env_remove(name);
    }
    command.env("HF_HOME", scratch.path("hf")).env("HF_TOKEN", token);
    match address {
        Some(address) => command.env_remove("HF_HUB_OFFLINE").env("HF_ENDPOINT", address),
        None => command.env("HF_HUB_OFFLINE", "1").env_remove("HF_ENDPOINT"),
    };
    command
}

#[test]
fn a_model_is_fetched_once_and_pinned_to_its_commit() {
    let scratch = Scratch::new();
    let (address, hub) = Hub::serve(&scratch.path(""));
    let run = |address: Option<&str>, token, code, line: &str| {
        let outcome = Outcome::of(command(&scratch, address, token, line).output().unwrap());
        assert_eq!(outcome.code, code, "{line}: {}", outcome.stderr);
        outcome
    };
    let online = |line: &str| run(Some(&address), TOKEN, 0, line);
    let offline = |code, line: &str| run(None, TOKEN, code, line);

    offline(FAILED, "model info org/tiny").says(&[
        "org/tiny",
        "HF_HUB_OFFLINE",
        "models--org--tiny",
    ]);
    run(Some(&address), "", FAILED, "model pull org/tiny").says(&["HF_TOKEN"]);
    run(Some(&address), "wrong", FAILED, "model pull org/tiny").says(&["this HF_TOKEN"]);
    run(Some(&address), TOKEN, FAILED, "model pull org/none").says(&["no such model"]);
    run(Some(&address), TOKEN, FAILED, "model pull org/tiny@v9").says(&["not revision v9"]);
    run(Some(&address), TOKEN, FAILED, "model pull nothing").says(&["smollm2-135m", "ORG/NAME"]);

    // A model that is not there is fetched when it is used.
    let info = online("model info org/tiny --json").json();
    assert_eq!(info[0]["name"], format!("org/tiny@{FIRST}"));
    assert_eq!(info[0]["architecture"], "qwen3");
    let asked = std::mem::take(&mut hub.lock().unwrap().asked);
    assert!(asked.contains(&"model-00002-of-00002.safetensors".to_owned()), "{asked:?}");
    assert!(!asked.contains(&"README.md".to_owned()), "{asked:?}");

    offline(0, "build CORPUS --store S --model org/tiny --profile plain");
    offline(0, "query --store S --model org/tiny --profile plain bees");
    online("model pull org/tiny");
    assert!(hub.lock().unwrap().asked.is_empty(), "what is there is not fetched again");

    // A branch that moves on gives the fetched model another name. Its weights are the same here, so it
    // reads the store.
    hub.lock().unwrap().main = SECOND;
    offline(0, "query --store S --model org/tiny bees");
    let pulled = online("model pull org/tiny").stdout;
    assert!(pulled.trim_end().ends_with(&format!("snapshots/{SECOND}")), "{pulled}");
    offline(0, "query --store S --model org/tiny bees");
    offline(0, &format!("query --store S --model org/tiny@{FIRST} bees"));
    let folder = scratch.path("hf/hub/models--org--tiny/snapshots").join(FIRST);
    let line = format!("query --store S --model {} bees", folder.display());
    offline(0, &line);
}

/// Runs a command with the hub at `address`, and checks how it ends.
fn ends(scratch: &Scratch, address: &str, code: i32, line: &str) -> Outcome {
    let outcome = Outcome::of(command(scratch, Some(address), TOKEN, line).output().unwrap());
    assert_eq!(outcome.code, code, "{line}: {}", outcome.stderr);
    outcome
}

#[test]
fn ggufs_of_the_hub_are_checked_and_chosen() {
    let scratch = Scratch::new();
    let (address, hub) = Hub::serve(&scratch.path(""));
    let run = |code, line: &str| ends(&scratch, &address, code, line);
    run(FAILED, "model info org/ggufs").says(&["2 GGUF files", "a.gguf", "sub/b.gguf"]);
    hub.lock().unwrap().lies = true;
    run(FAILED, "model pull org/ggufs/sub/b.gguf").says(&["sha256"]);
    hub.lock().unwrap().lies = false;
    let info = run(0, "model info org/ggufs/sub/b.gguf --json").json();
    assert_eq!(info[0]["name"], format!("org/ggufs/sub/b.gguf@{FIRST}"));
}

#[test]
fn a_path_with_a_typing_error_is_not_asked_of_the_hub() {
    let scratch = Scratch::new();
    let (address, hub) = Hub::serve(&scratch.path(""));
    fs::create_dir(scratch.path("models")).unwrap();
    fs::copy(crate::support::testdata("tiny.gguf"), scratch.path("models/bees-q4.gguf")).unwrap();
    let run = |line: &str| {
        let outcome = ends(&scratch, &address, FAILED, line);
        outcome.says(&["there is no such file or folder"]);
        outcome
    };
    for path in ["models/bees-q5.gguf", "./models/bees-q5.gguf", "models/bees-p4.gguf"] {
        run(&format!("model info {path}")).says(&[path, "near it is", "models/bees-q4.gguf"]);
    }
    run("build CORPUS --store s --model models/bee.safetensors");
    run("build CORPUS --store s --model none/bees.gguf").says(&["there is no folder none either"]);
    run("model info models/deep/bees.gguf");
    run("model info ~/bees.gguf").says(&["~"]);
    run("model info models\\bees-q4.gguf");
    run("model info model/").says(&["models"]);
    run("model pull models/bees-q5.gguf").says(&["near it is"]);
    // A folder of that name is here, or the name is one of a file.
    for verb in ["info", "pull"] {
        run(&format!("model {verb} models/hive"))
            .says(&["there is a folder models here", "models/hive@main is the model of the hub"]);
        run(&format!("model {verb} org/hive.safetensors"));
        run(&format!("model {verb} org/hive.gguf@main"));
        run(&format!("model {verb} hive.gguf@main"));
        run(&format!("model {verb} models/bees-q4.gguf@main"))
            .says(&["there is models/bees-q4.gguf, and a file has no revision"]);
    }
    assert!(hub.lock().unwrap().asked.is_empty());
    let own = ends(&scratch, &address, FAILED, "model pull models/bees-q4.gguf");
    own.says(&["models/bees-q4.gguf: it is on this machine"]);
    fs::create_dir(scratch.path("org")).unwrap();
    run("model info org/tiny");
    ends(&scratch, &address, 0, "model info org/tiny@main");
}

#[test]
fn a_file_that_is_cut_short_in_the_cache_is_fetched_again() {
    let scratch = Scratch::new();
    let (address, hub) = Hub::serve(&scratch.path(""));
    let asked = || std::mem::take(&mut hub.lock().unwrap().asked);
    ends(&scratch, &address, 0, "model pull org/tiny");
    let snapshot = scratch.path("hf/hub/models--org--tiny/snapshots").join(FIRST);
    let cut = |name: &str| {
        let blob = snapshot.join(name).canonicalize().unwrap();
        let bytes = fs::read(&blob).unwrap();
        fs::write(&blob, &bytes[..bytes.len() / 2]).unwrap();
        asked();
        bytes
    };
    for (name, verb) in [("model-00001-of-00002.safetensors", "info"), ("tokenizer.json", "pull")] {
        let whole = cut(name);
        let mended = ends(&scratch, &address, 0, &format!("model {verb} org/tiny"));
        let half = whole.len() / 2;
        mended.says(&[name, &format!("has {half} bytes"), "fetching it again"]);
        assert_eq!(fs::read(snapshot.join(name)).unwrap(), whole);
        let asked = asked();
        assert!(asked.iter().all(|file| file == name) && !asked.is_empty(), "{asked:?}");
    }
    ends(
        &scratch,
        &address,
        0,
        "build CORPUS --store s --model org/tiny --profile plain --limit 4",
    );
    // A store's model is not fetched without a request, and nothing is fetched without a network.
    cut("config.json");
    let pull = format!("run `hyperrag model pull org/tiny@{FIRST}`");
    ends(&scratch, &address, FAILED, "query --store s bees").says(&[&pull]);
    let offline = command(&scratch, None, TOKEN, "model info org/tiny").output().unwrap();
    Outcome::of(offline).says(&["HF_HUB_OFFLINE"]);
    assert!(asked().is_empty());
    ends(&scratch, &address, 0, &format!("model pull org/tiny@{FIRST}"));
    ends(&scratch, &address, 0, "query --store s bees");
}

#[test]
fn a_busy_hub_is_asked_again() {
    let scratch = Scratch::new();
    let (address, hub) = Hub::serve(&scratch.path(""));
    let run = |code, line: &str| ends(&scratch, &address, code, line);
    let busy = |count, status| hub.lock().unwrap().busy = (count, status);
    busy(usize::MAX, "429 Too Many Requests\r\nretry-after: 3600");
    run(FAILED, "model pull org/tiny")
        .says(&["is busy (status 429) and asks to wait 3600 seconds"]);
    busy(usize::MAX, "503 Service Unavailable\r\nretry-after: 0");
    run(FAILED, "model pull org/tiny").says(&["trying again in 0 s", "is busy (status 503)"]);
    busy(3, "429 Too Many Requests\r\nretry-after: 0");
    let pulled = run(0, "model pull org/tiny");
    assert_eq!(pulled.stderr.matches("trying again").count(), 3, "{}", pulled.stderr);
    busy(1, "503 Service Unavailable");
    run(0, "model pull org/ggufs/a.gguf").says(&["trying again in 1 s"]);
    // A date that is past names no time to wait.
    busy(2, "503 Service Unavailable\r\nretry-after: Wed, 21 Oct 2015 07:28:00 GMT");
    let pulled = run(0, "model pull org/ggufs/sub/b.gguf");
    pulled.says(&["trying again in 1 s", "trying again in 2 s"]);
}

#[test]
fn settings_of_the_hub_are_read_as_they_are_written() {
    let scratch = Scratch::new();
    let (address, hub) = Hub::serve(&scratch.path(""));
    let bare = address.strip_prefix("http://").unwrap();
    let run = |address: &str, token: &str, line: &str| {
        let mut command = command(&scratch, Some(address), token, line);
        Outcome::of(command.output().unwrap())
    };
    for (address, token) in [
        (format!("{address}/"), format!("{TOKEN}\n")),
        (bare.to_owned(), format!("  {TOKEN} \r\n")),
        (format!(" {bare}/\n"), TOKEN.to_owned()),
    ] {
        let pulled = run(&address, &token, "model pull org/tiny");
        assert_eq!(pulled.code, 0, "{address:?}: {}", pulled.stderr);
        fs::remove_dir_all(scratch.path("hf")).unwrap();
    }
    let broken = run(&address, "two lines\nof it", "model pull org/tiny");
    assert_eq!(broken.code, FAILED);
    broken.says(&["HF_TOKEN has characters that no token has"]);
    assert!(!broken.stderr.contains("of it"), "{}", broken.stderr);
    fs::create_dir_all(scratch.path("hf")).unwrap();
    scratch.write("hf/token", format!("{TOKEN}\r\n"));
    assert_eq!(run(&address, "", "model pull org/tiny").code, 0);
    // A mirror that names no bytes.
    fs::remove_dir_all(scratch.path("hf/hub")).unwrap();
    hub.lock().unwrap().untagged = true;
    let pulled = run(&address, TOKEN, "model pull org/tiny");
    assert_eq!(pulled.code, 0, "{}", pulled.stderr);
    assert_eq!(run(&address, TOKEN, "model info org/tiny").code, 0);
    let blobs = scratch.path("hf/hub/models--org--tiny/blobs");
    let names = fs::read_dir(blobs).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(names.into_iter().all(|name| name.len() == 64));
}

#[test]
fn a_store_pins_the_commit_and_never_fetches() {
    let scratch = Scratch::new();
    let (address, hub) = Hub::serve(&scratch.path(""));
    let run = |address: Option<&str>, code, line: &str| {
        let outcome = Outcome::of(command(&scratch, address, TOKEN, line).output().unwrap());
        assert_eq!(outcome.code, code, "{line}: {}", outcome.stderr);
        outcome
    };
    let build = "--profile plain --limit 4";
    run(Some(&address), 0, &format!("build CORPUS --store s --model org/tiny {build}"));
    let info = run(None, 0, "info --store s --json").json();
    assert_eq!(info[0]["notes"]["model"], format!("org/tiny@{FIRST}"));
    hub.lock().unwrap().main = SECOND;
    run(Some(&address), 0, "model pull org/tiny");
    run(None, 0, "query --store s bees");
    run(Some(&address), 0, &format!("build CORPUS --store g --model org/ggufs/a.gguf {build}"));
    run(None, 0, "query --store g bees");
    fs::remove_dir_all(scratch.path("hf/hub")).unwrap();
    hub.lock().unwrap().asked.clear();
    run(Some(&address), FAILED, "query --store s bees").says(&[
        "the store was made with the model",
        &format!("run `hyperrag model pull org/tiny@{FIRST}`"),
    ]);
    assert!(hub.lock().unwrap().asked.is_empty());
    run(Some(&address), 0, &format!("model pull org/tiny@{FIRST}"));
    run(Some(&address), 0, "query --store s bees");
    let files = crate::support::all_files(&scratch.path("s"));
    for path in files.iter().filter(|path| path.is_file()) {
        let bytes = fs::read(path).unwrap();
        assert!(!bytes.windows(TOKEN.len()).any(|part| part == TOKEN.as_bytes()), "{path:?}");
    }
}

#[test]
fn a_model_with_a_path_needs_no_home() {
    let scratch = Scratch::new();
    let without = |line: &str, home: Option<&str>| {
        let mut command = scratch.command(line);
        for name in ["HYPERRAG_HOME", "XDG_CACHE_HOME", "HF_HOME", "HOME"] {
            command.env_remove(name);
        }
        command.envs(home.map(|home| ("HOME", home)));
        Outcome::of(command.output().unwrap())
    };
    for (home, store) in [(None, "a"), (Some("/nonexistent"), "b")] {
        for line in [
            format!("build CORPUS --store {store} TINY --limit 4"),
            format!("query --store {store} bees"),
        ] {
            let outcome = without(&line, home);
            assert_eq!(outcome.code, 0, "{line}: {}", outcome.stderr);
        }
    }
    let named = without("build CORPUS --store c", None);
    assert_eq!(named.code, FAILED);
    named.says(&["there is no folder for models", "HYPERRAG_HOME"]);
}
