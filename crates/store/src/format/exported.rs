//! Files that an exported store has beside its shards: they come in, the listing of their objects and the file
//! that names the listing go out, and back. It opens no file and knows no place.

use std::collections::HashSet;

use hyperrag_core::Digest;
use serde::{Deserialize, Serialize};

use crate::format::manifest::MANIFEST_BYTES_MAX;
use crate::format::paths::{is_manifest, is_sent_along};

/// Version of listings.
const VERSION: u32 = 1;
/// Largest listing, in bytes: a million shards.
pub const LISTING_BYTES_MAX: u64 = 1 << 30;
/// Largest file that names the listing, in bytes.
pub const CURRENT_BYTES_MAX: u64 = 4096;
/// Name of the file that names the listing. It alone is ever replaced.
pub const CURRENT: &str = "CURRENT";
/// Start of the name of a listing.
const LISTING: &str = "listing.json";

/// Returns the name of the object that holds a file of this digest.
pub(crate) fn object_name(path: &str, digest: &Digest) -> String {
    format!("{path}.{}", short(digest))
}

/// Returns the first 32 hexadecimal digits of a digest.
pub(crate) fn short(digest: &Digest) -> String {
    digest.to_string()[..32].to_owned()
}

/// A file of an exported store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedFile {
    /// Path in the store's folder.
    pub path: String,
    /// Name of the object that holds it. No other bytes ever have this name.
    pub object: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Digest of all bytes.
    pub blake3: Digest,
}

impl ListedFile {
    pub(crate) fn new(path: String, bytes: u64, blake3: Digest) -> Self {
        Self { object: object_name(&path, &blake3), path, bytes, blake3 }
    }
}

/// The files of an exported store at one generation, apart from its shards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    format: u32,
    /// Generation of the store.
    pub generation: u64,
    /// Digest of the store's fingerprint.
    pub fingerprint: Digest,
    /// Files, by path.
    pub files: Vec<ListedFile>,
}

impl Listing {
    pub(crate) fn new(generation: u64, fingerprint: Digest, files: Vec<ListedFile>) -> Self {
        Self { format: VERSION, generation, fingerprint, files }
    }

    /// Returns the listing as JSON.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a listing has only plain fields")
    }

    /// Returns the digest of the manifest; `None` if the listing has none.
    fn manifest(&self) -> Option<Digest> {
        self.files.iter().find(|file| is_manifest(&file.path)).map(|file| file.blake3)
    }

    /// Reads a listing that was checked before it was kept on this machine.
    #[must_use]
    pub fn of_own(bytes: &[u8]) -> Option<Self> {
        let listing: Self = serde_json::from_slice(bytes).ok()?;
        listing.files.iter().all(|file| is_sent_along(&file.path)).then_some(listing)
    }

    /// Reads the listing that `current` names. Each path must be one that an export sends, and no two may be
    /// equal.
    ///
    /// # Errors
    /// A sentence with the fault.
    pub fn parse(bytes: &[u8], current: &Current) -> Result<Self, ListingFault> {
        if bytes.len() as u64 != current.bytes || Digest::of(bytes) != current.blake3 {
            return Err(ListingFault("it is not the one that is named".to_owned()));
        }
        check_version(bytes)?;
        let listing: Self = serde_json::from_slice(bytes).map_err(no_listing)?;
        let mut paths = HashSet::new();
        for file in &listing.files {
            let ListedFile { path, object, bytes, blake3 } = file;
            let fault = match () {
                () if !is_sent_along(path) => "which is no file of a store",
                () if *object != object_name(path, blake3) => "whose object has another name",
                () if is_manifest(path) && *bytes > MANIFEST_BYTES_MAX => "which is too long",
                () if !paths.insert(path) => "which stands there twice",
                () => continue,
            };
            return Err(ListingFault(format!("it names {path:?}, {fault}")));
        }
        match (listing.generation, listing.manifest())
            == (current.generation, Some(current.manifest))
        {
            true => Ok(listing),
            false => Err(ListingFault("it is of another generation".to_owned())),
        }
    }
}

/// Says what is wrong with a listing, or with the file that names it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ListingFault(String);

fn no_listing(error: serde_json::Error) -> ListingFault {
    ListingFault(format!("it cannot be read: {error}"))
}

fn check_version(bytes: &[u8]) -> Result<(), ListingFault> {
    #[derive(Deserialize)]
    struct AnyVersion {
        format: u32,
    }
    let AnyVersion { format } = serde_json::from_slice(bytes).map_err(no_listing)?;
    match format {
        VERSION => Ok(()),
        other => Err(ListingFault(format!(
            "it is of version {other}, this program reads version {VERSION}; use a newer hyperrag"
        ))),
    }
}

/// The small file that says which generation an exported store has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Current {
    format: u32,
    /// Name of the listing's object.
    pub listing: String,
    /// Length of the listing, in bytes.
    pub bytes: u64,
    /// Digest of the listing.
    pub blake3: Digest,
    /// Generation of the store.
    pub generation: u64,
    /// Digest of the store's fingerprint.
    pub fingerprint: Digest,
    /// Digest of the manifest, which tells stores of one generation apart.
    pub manifest: Digest,
}

impl Current {
    /// Names a listing. Returns `None` for one without a manifest.
    #[must_use]
    pub fn of(listing: &Listing) -> Option<Self> {
        let (bytes, manifest) = (listing.to_bytes(), listing.manifest()?);
        let blake3 = Digest::of(&bytes);
        Some(Self {
            format: VERSION,
            listing: object_name(LISTING, &blake3),
            bytes: bytes.len() as u64,
            blake3,
            generation: listing.generation,
            fingerprint: listing.fingerprint,
            manifest,
        })
    }

    /// Returns the file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("it has only plain fields")
    }

    /// Returns a name of the listing that a folder can have.
    #[must_use]
    pub fn short(&self) -> String {
        short(&self.blake3)
    }

    /// Reads the file.
    ///
    /// # Errors
    /// A sentence with the fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, ListingFault> {
        check_version(bytes)?;
        let current: Self = serde_json::from_slice(bytes).map_err(no_listing)?;
        let named = current.listing == object_name(LISTING, &current.blake3);
        match named && current.bytes <= LISTING_BYTES_MAX {
            true => Ok(current),
            false => Err(ListingFault("it names no listing".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::format::paths::StorePaths;

    fn manifest_path() -> String {
        StorePaths::new(Path::new("")).manifest().display().to_string()
    }

    fn file(path: &str) -> ListedFile {
        ListedFile::new(path.to_owned(), 3, Digest::of(path.as_bytes()))
    }

    fn read(files: Vec<ListedFile>) -> Result<Listing, ListingFault> {
        let listing = Listing::new(7, Digest([9; 32]), files);
        let current = Current::of(&listing).unwrap();
        assert_eq!(Current::parse(&current.to_bytes()), Ok(current.clone()));
        Listing::parse(&listing.to_bytes(), &current)
    }

    #[test]
    fn a_listing_comes_back_and_names_files_of_a_store_only() {
        let manifest = file(&manifest_path());
        let good = vec![manifest.clone(), file("index/meta.json")];
        assert_eq!(read(good.clone()).unwrap().files, good);
        let renamed = ListedFile { object: manifest_path(), ..file("notes.json") };
        for (bad, said) in [
            (file("../x"), "\"../x\", which is no file"),
            (file("/x"), "no file"),
            (manifest.clone(), "twice"),
            (renamed, "another name"),
        ] {
            let fault = read(vec![manifest.clone(), bad]).unwrap_err().to_string();
            assert!(fault.contains(said), "{fault}");
        }
        let long = ListedFile { bytes: u64::MAX, ..manifest };
        assert!(read(vec![long]).unwrap_err().to_string().contains("too long"));
        assert_eq!(Current::of(&Listing::new(1, Digest([9; 32]), Vec::new())), None);
    }

    #[test]
    fn other_bytes_and_other_versions_are_refused() {
        let listing = Listing::new(7, Digest([9; 32]), vec![file(&manifest_path())]);
        let current = Current::of(&listing).unwrap();
        for (bytes, named) in [
            (Listing { generation: 8, ..listing.clone() }.to_bytes(), current.clone()),
            (listing.to_bytes(), Current { generation: 8, ..current.clone() }),
            (listing.to_bytes(), Current { manifest: Digest([0; 32]), ..current.clone() }),
        ] {
            assert!(Listing::parse(&bytes, &named).is_err());
        }
        let newer = Current { format: 2, ..current.clone() }.to_bytes();
        assert!(Current::parse(&newer).unwrap_err().to_string().contains("newer hyperrag"));
        let elsewhere = Current { listing: "../x".to_owned(), ..current.clone() }.to_bytes();
        let huge = Current { bytes: u64::MAX, ..current }.to_bytes();
        for bytes in [elsewhere, huge, b"{}".to_vec(), Vec::new()] {
            assert!(Current::parse(&bytes).is_err());
        }
    }
}
