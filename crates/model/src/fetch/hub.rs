//! Models of the Hugging Face hub, kept in the cache that all its clients share.
//!
//! In: an id. Out: the path of a file or folder in the cache, fetched if needed. It does not read
//! models.

mod client;
mod lengths;

use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use hyperrag_core::Warning;

use crate::error::LoadError;
use crate::fetch::checksum::{check_sha256, sha256_of};
use crate::fetch::folders::{folder_of, lock, make_folder, user_cache};
use crate::format::gguf::split::PartName;
use crate::format::weight_files::{gguf_parts, only_gguf, weight_files};
use client::{Failure, HubClient};
use lengths::{FileLengths, length};

/// Files beside the weights from which a model is read: the required ones, then the others.
const NEEDED: [&str; 2] = ["config.json", "tokenizer.json"];
const USED: [&str; 3] = ["tokenizer_config.json", "chat_template.jinja", "generation_config.json"];
const WHOLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// `org/name` or `org/name/FILE.gguf`, each with or without `@revision`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HubId {
    repo: String,
    file: Option<String>,
    revision: String,
}

impl HubId {
    /// Parses an id; `None` if `name` is none.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (path, revision) = name.split_once('@').unwrap_or((name, "main"));
        let word = |part: &str| {
            let known = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !part.is_empty() && !part.starts_with(['.', '-']) && part.chars().all(known)
        };
        let parts: Vec<&str> = path.split('/').collect();
        if parts.len() < 2 || !parts.iter().all(|part| word(part)) {
            return None;
        }
        let file = (parts.len() > 2).then(|| parts[2..].join("/"));
        if file.as_ref().is_some_and(|file| !file.ends_with(".gguf")) {
            return None;
        }
        let repo = parts[..2].join("/");
        revision.split('/').all(word).then(|| Self { repo, file, revision: revision.to_owned() })
    }

    /// Returns the model's folder in the hub's cache, by the name that all clients use.
    fn folder(&self) -> String {
        format!("models--{}", self.repo.replace('/', "--"))
    }
}

/// The hub and its cache.
pub(crate) struct Hub {
    cache: PathBuf,
    endpoint: Option<String>,
    token: Option<String>,
    offline: bool,
    /// Told why a fetch takes longer.
    warn: fn(&Warning),
}

impl Hub {
    /// Reads the variables that all clients of the hub know: `HF_HOME`, `HF_HUB_CACHE`,
    /// `HF_HUB_OFFLINE`, `HF_TOKEN`, `HF_TOKEN_PATH`, `HF_ENDPOINT`.
    pub(crate) fn from_environment(warn: fn(&Warning)) -> Result<Self, LoadError> {
        let variable = |name: &str| {
            let value = std::env::var(name).ok().map(|value| value.trim().to_owned());
            value.filter(|value| !value.is_empty())
        };
        let home = match folder_of("HF_HOME") {
            Some(home) => home,
            None => user_cache()?.join("huggingface"),
        };
        let cache = folder_of("HF_HUB_CACHE").unwrap_or_else(|| home.join("hub"));
        let token_file = folder_of("HF_TOKEN_PATH").unwrap_or_else(|| home.join("token"));
        let stored = || fs::read_to_string(token_file).ok().map(|token| token.trim().to_owned());
        let yes = |value: String| {
            ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
        };
        Ok(Self {
            cache,
            endpoint: variable("HF_ENDPOINT").map(|url| with_scheme(&url)),
            token: variable("HF_TOKEN").or_else(stored).filter(|token| !token.is_empty()),
            offline: variable("HF_HUB_OFFLINE").is_some_and(yes),
            warn,
        })
    }

    /// Returns the folder of the model in the cache, which need not exist.
    pub(crate) fn folder(&self, id: &HubId) -> PathBuf {
        self.cache.join(id.folder())
    }

    /// Returns the path of the model in the cache. Fetches it if it is not there.
    pub(crate) fn resolve(&self, id: &HubId) -> Result<PathBuf, LoadError> {
        match self.cached(id) {
            Some(path) => Ok(path),
            None => self.pull(id),
        }
    }

    /// Returns the path of the model if all of it is in the cache, with the lengths that the hub stated.
    pub(crate) fn cached(&self, id: &HubId) -> Option<PathBuf> {
        let place = self.cache.join(id.folder());
        let commit = match is_commit(&id.revision) {
            true => id.revision.clone(),
            false => {
                let named = fs::read_to_string(place.join("refs").join(&id.revision)).ok()?;
                named.trim().to_owned()
            }
        };
        if !is_commit(&commit) {
            return None;
        }
        let path = complete(&place.join("snapshots").join(&commit), id.file.as_deref());
        path.filter(|_| lengths::hold(&place, &commit))
    }

    /// Fetches the commit that the revision names now, as far as the cache lacks its files.
    pub(crate) fn pull(&self, id: &HubId) -> Result<PathBuf, LoadError> {
        let failed = |what: String| LoadError::Hub { id: id.repo.clone(), what };
        let place = self.cache.join(id.folder());
        if self.offline {
            return Err(failed(format!(
                "not all of revision {} is in the hub's cache ({}), and HF_HUB_OFFLINE forbids to \
                 fetch it: unset it, or copy that folder from a machine that has the model",
                id.revision,
                place.display()
            )));
        }
        if self.token.as_ref().is_some_and(|token| !token.bytes().all(|b| b.is_ascii_graphic())) {
            let what = "HF_TOKEN has characters that no token has: set it anew";
            return Err(failed(what.to_owned()));
        }
        let locks = self.cache.join(".locks").join(id.folder());
        make_folder(&locks)?;
        let _locked = lock(&locks.join("hyperrag.lock"))?;

        let client = HubClient::new(self.endpoint.clone(), self.token.clone(), self.warn);
        let listing = client.listing(&id.repo, &id.revision);
        let listing = listing.map_err(|failure| failed(self.advice(id, failure)))?;
        let commit = listing.commit;
        if !is_commit(&commit) {
            return Err(failed(format!("the hub names {commit:?} as its commit")));
        }
        let there: Vec<&str> = listing.files.iter().map(|file| file.name.as_str()).collect();
        let stated = listing.files.iter().filter_map(|file| Some((file.name.clone(), file.size?)));
        let snapshot = Snapshot {
            hub: self,
            id,
            client: &client,
            place: &place,
            folder: place.join("snapshots").join(&commit),
            lengths: stated.collect(),
            commit,
        };
        for file in wanted(&there, id.file.as_deref()).map_err(failed)? {
            snapshot.fetch(&file)?;
        }
        for file in weight_files(&snapshot.folder)?.unwrap_or_default() {
            let name = file.strip_prefix(&snapshot.folder).unwrap_or(&file).to_string_lossy();
            snapshot.fetch(&name)?;
        }
        lengths::remember(&place, &snapshot.commit, &snapshot.lengths)?;
        let named = place.join("refs").join(&id.revision);
        make_folder(named.parent().unwrap_or(&place))?;
        fs::write(&named, &snapshot.commit).map_err(LoadError::io(&named, "cannot be written"))?;
        complete(&snapshot.folder, id.file.as_deref())
            .ok_or_else(|| failed("the hub has not all files that its list names".to_owned()))
    }

    /// Says what failed and what to do.
    fn advice(&self, id: &HubId, failure: Failure) -> String {
        let said = match failure {
            Failure::Status(401 | 403) if self.token.is_none() => {
                return "the hub wants to know who asks: there may be no such model, or it is for \
                        users who accepted its terms; then set HF_TOKEN"
                    .to_owned();
            }
            Failure::Status(401 | 403) => {
                return "the hub does not let the owner of this HF_TOKEN have it: accept its terms \
                        on its page, or use another token"
                    .to_owned();
            }
            Failure::Status(404) => {
                return format!("the hub has no such model, or not revision {}", id.revision);
            }
            Failure::Busy { status, wait_seconds } => {
                let wait = wait_seconds
                    .map_or_else(String::new, |wait| format!(" and asks to wait {wait} seconds"));
                return format!("the hub is busy (status {status}){wait}: try again later");
            }
            Failure::Status(status) => format!("status {status}"),
            Failure::Other(said) => said,
        };
        format!(
            "the hub did not answer as it must ({said}): try again, or name a local file or folder"
        )
    }
}

/// Files of one commit, which are being fetched.
struct Snapshot<'a> {
    hub: &'a Hub,
    id: &'a HubId,
    client: &'a HubClient,
    /// Folder of the model in the cache.
    place: &'a Path,
    commit: String,
    /// Folder of the commit.
    folder: PathBuf,
    lengths: FileLengths,
}

impl Snapshot<'_> {
    /// Fetches one file unless it is there whole, and checks its SHA-256 if the hub knows it. The bytes lie
    /// in `blobs/`, where other snapshots share them; the snapshot has a link.
    fn fetch(&self, file: &str) -> Result<(), LoadError> {
        let link = self.folder.join(file);
        let stated = self.lengths.get(file).copied();
        let whole = |path: &Path| length(path).is_some_and(|is| stated.is_none_or(|all| is == all));
        if whole(&link) {
            return Ok(());
        }
        let failed = |failure| LoadError::Hub {
            id: self.id.repo.clone(),
            what: format!("{file}: {}", self.hub.advice(self.id, failure)),
        };
        let mut parts = Path::new(file).components();
        if !parts.all(|part| matches!(part, Component::Normal(_))) {
            return Err(failed(Failure::Other("it names a file outside of the model".to_owned())));
        }
        if let Some((is, all)) = length(&link).zip(stated) {
            let what = format!("{file} has {is} bytes in the hub's cache and {all} on the hub");
            (self.hub.warn)(&format!("{}: {what}: fetching it again", self.id.repo).into());
        }
        let blobs = self.place.join("blobs");
        make_folder(&blobs)?;
        let url = self.client.url(&self.id.repo, &self.commit, file);
        let tag = self.client.blob(&url).map_err(failed)?;
        if let Some(blob) = tag.as_ref().map(|tag| blobs.join(tag)).filter(|blob| whole(blob)) {
            return put_link(&blob, &self.folder, &link, file);
        }
        // Without a tag the place of the bytes names what is fetched of them.
        let place = format!("{}-{}", self.commit, file.replace('/', "-"));
        let partial = blobs.join(format!("{}.hyperrag", tag.as_ref().unwrap_or(&place)));
        self.client.download(&url, &partial).map_err(failed)?;
        let blob = match tag {
            Some(tag) if !is_sha256(&tag) => blobs.join(tag),
            tag => {
                let opened = File::open(&partial);
                let mut opened = opened.map_err(LoadError::io(&partial, "cannot be read"))?;
                let hash = sha256_of(&mut opened, &partial)?;
                let blob = blobs.join(tag.as_ref().unwrap_or(&hash));
                if let Some(tag) = tag {
                    check_sha256(&blob, &tag, hash).inspect_err(|_| {
                        let _ = fs::remove_file(&partial);
                    })?;
                }
                blob
            }
        };
        fs::rename(&partial, &blob).map_err(LoadError::io(&blob, "cannot be put in place"))?;
        put_link(&blob, &self.folder, &link, file)
    }
}

/// Returns an address with its scheme and without a slash at its end. Without a scheme it is that of every
/// server but one of this machine.
fn with_scheme(address: &str) -> String {
    let address = address.trim_end_matches('/');
    let host = address.split(['/', ':']).next().unwrap_or_default();
    match address.contains("://") {
        true => address.to_owned(),
        false if ["localhost", "127.0.0.1"].contains(&host) => format!("http://{address}"),
        false => format!("https://{address}"),
    }
}

/// Puts a link to a blob in a snapshot, by the name of the model's file.
fn put_link(blob: &Path, snapshot: &Path, link: &Path, file: &str) -> Result<(), LoadError> {
    make_folder(link.parent().unwrap_or(snapshot))?;
    // A link stays behind if its blob is gone.
    let _ = fs::remove_file(link);
    let up: PathBuf = Path::new(file).components().map(|_| "..").chain([".."]).collect();
    let name = blob.file_name().unwrap_or_default();
    let linked = std::os::unix::fs::symlink(up.join("blobs").join(name), link);
    linked.map_err(LoadError::io(link, "cannot be made"))
}

/// Returns the path by which a snapshot is opened; `None` if a part of it is missing.
fn complete(snapshot: &Path, file: Option<&str>) -> Option<PathBuf> {
    if let Some(file) = file {
        return Some(snapshot.join(file)).filter(|path| all_parts_exist(path));
    }
    let weights = weight_files(snapshot).ok().flatten().unwrap_or_default();
    let needed = NEEDED.iter().map(|file| snapshot.join(file));
    match weights.is_empty() {
        false => needed.chain(weights).all(|path| path.exists()).then(|| snapshot.to_owned()),
        true => only_gguf(snapshot).filter(|path| all_parts_exist(path)),
    }
}

fn all_parts_exist(path: &Path) -> bool {
    gguf_parts(path).iter().all(|part| part.exists())
}

/// Returns a GGUF with all its parts, if it is split.
fn with_parts(file: &str) -> Vec<String> {
    let (folder, name) = file.rsplit_once('/').map_or(("", file), |(folder, name)| (folder, name));
    let path = |name: String| if folder.is_empty() { name } else { format!("{folder}/{name}") };
    match PartName::of(name) {
        Some(part) => part.all().map(path).collect(),
        None => vec![file.to_owned()],
    }
}

/// Chooses the files of a model to fetch, without the shards of its weights. Returns the reason if
/// there is no choice.
fn wanted(there: &[&str], file: Option<&str>) -> Result<Vec<String>, String> {
    let has = |name: &str| there.contains(&name);
    if let Some(file) = file {
        let files = with_parts(file);
        let missing = files.iter().find(|file| !has(file));
        return missing.map_or(Ok(files.clone()), |file| Err(format!("it has no file {file}")));
    }
    if has(INDEX) || has(WHOLE) {
        if let Some(missing) = NEEDED.iter().find(|name| !has(name)) {
            return Err(format!("it has no {missing}, without which it cannot be read"));
        }
        let weights = if has(WHOLE) { WHOLE } else { INDEX };
        let used = USED.into_iter().filter(|name| has(name));
        let all = NEEDED.into_iter().chain(used).chain([weights]);
        return Ok(all.map(str::to_owned).collect());
    }
    let ggufs: Vec<&str> = there.iter().copied().filter(|name| name.ends_with(".gguf")).collect();
    match ggufs[..] {
        [file] => Ok(vec![file.to_owned()]),
        [] => Err("it has neither safetensors nor a GGUF".to_owned()),
        // In a folder of its own, one of several quantisations: the user chooses.
        [first, ..] if !first.contains('/') && has_all_of(&ggufs, &with_parts(first)) => {
            Ok(with_parts(first))
        }
        _ => {
            let some = ggufs.iter().take(4).copied().collect::<Vec<_>>().join(", ");
            Err(format!(
                "it has {} GGUF files: name one of them, ID/FILE ({some}, ...)",
                ggufs.len()
            ))
        }
    }
}

/// Whether the names are those of the parts, in any order.
fn has_all_of(names: &[&str], parts: &[String]) -> bool {
    names.len() == parts.len() && parts.iter().all(|part| names.contains(&part.as_str()))
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_sha256(tag: &str) -> bool {
    tag.len() == 64 && is_hexadecimal(tag)
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && is_hexadecimal(revision)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_paths() {
        let check = |name: &str, expected: Option<(&str, Option<&str>, &str)>| {
            let found = HubId::parse(name);
            let found = found
                .as_ref()
                .map(|id| (id.repo.as_str(), id.file.as_deref(), id.revision.as_str()));
            assert_eq!(found, expected, "{name}");
        };
        check("org/name", Some(("org/name", None, "main")));
        check("org/name-2.5_x@refs/pr/3", Some(("org/name-2.5_x", None, "refs/pr/3")));
        check("org/name/a/q4.gguf@v1", Some(("org/name", Some("a/q4.gguf"), "v1")));
        for other in
            ["name", "./name", "../name/x", "/org/name", "org/name/model.bin", "org/", "a b/c"]
        {
            check(other, None);
        }
        for other in ["org/name@", "org/name@../x", "org/../x.gguf", "org/name@a b"] {
            check(other, None);
        }
    }

    #[test]
    fn an_address_gets_what_it_lacks() {
        for (given, expected) in [
            ("https://hub.example/", "https://hub.example"),
            ("http://hub.example:8080//", "http://hub.example:8080"),
            ("hub.example", "https://hub.example"),
            ("hub.example/mirror/", "https://hub.example/mirror"),
            ("localhost:8080", "http://localhost:8080"),
            ("127.0.0.1:1", "http://127.0.0.1:1"),
        ] {
            assert_eq!(with_scheme(given), expected);
        }
    }

    #[test]
    fn files_are_chosen() {
        let chosen = |there: &[&str], file| wanted(there, file).map(|files| files.join(" "));
        let whole = ["README.md", "model.safetensors", "config.json", "tokenizer.json"];
        assert_eq!(chosen(&whole, None).unwrap(), "config.json tokenizer.json model.safetensors");
        let stale = [&whole[..], &[INDEX]].concat();
        assert_eq!(chosen(&stale, None), chosen(&whole, None));
        assert!(chosen(&whole[..3], None).unwrap_err().contains("tokenizer.json"));
        assert_eq!(chosen(&["a.gguf"], None).unwrap(), "a.gguf");
        let two = ["a.gguf", "b.gguf"];
        assert!(chosen(&two, None).unwrap_err().contains("a.gguf, b.gguf"));
        assert_eq!(chosen(&two, Some("b.gguf")).unwrap(), "b.gguf");
        assert!(chosen(&two, Some("c.gguf")).is_err());
        // A split one is fetched whole, whichever part is named.
        let split = ["q/a-00002-of-00002.gguf", "q/a-00001-of-00002.gguf"];
        let all = "q/a-00001-of-00002.gguf q/a-00002-of-00002.gguf";
        assert!(chosen(&split, None).is_err());
        let plain = ["a-00002-of-00002.gguf", "a-00001-of-00002.gguf"];
        let both = "a-00001-of-00002.gguf a-00002-of-00002.gguf";
        assert_eq!(chosen(&plain, None).unwrap(), both);
        assert_eq!(chosen(&[&split[..], &two].concat(), Some(split[0])).unwrap(), all);
        assert!(chosen(&split[..1], Some(split[0])).unwrap_err().contains("00001-of-00002"));
        assert!(chosen(&[split[0], "b.gguf"], None).is_err());
        assert!(
            chosen(&["pytorch_model.bin", "config.json"], None).unwrap_err().contains("neither")
        );
    }
}
