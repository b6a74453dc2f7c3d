//! The name or the file of a profile in, the profile out. It knows no model.

use std::error::Error;
use std::io;
use std::path::Path;

use hyperrag_core::{Classified, ErrorKind, Profile, ProfileError};

/// Bytes of a profile's file.
const PROFILE_BYTES_MAX: u64 = 1 << 20;

/// Tells why there is no profile of a name.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoProfile {
    /// Neither a built-in one nor a file that can be read.
    #[error("there is no profile {name:?}: name one of {known}, or a TOML file that can be read")]
    Unknown {
        /// Name of the profile.
        name: String,
        /// The built-in ones.
        known: String,
        /// Cause.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A file that is no profile.
    #[error("{name}: not a usable profile")]
    Unusable {
        /// The file.
        name: String,
        /// Cause.
        #[source]
        source: ProfileError,
    },
}

impl Classified for NoProfile {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Input
    }
}

/// A file that cannot be read as text.
#[derive(Debug, thiserror::Error)]
#[error("{name}: the profile cannot be read")]
struct Unreadable {
    name: String,
    source: io::Error,
}

/// Reads a profile by its name, or from its file.
pub(crate) fn read_profile(name: &str) -> Result<Profile, NoProfile> {
    if let Some(profile) = Profile::built_in(name) {
        return Ok(profile);
    }
    let opened = hyperrag_files::open(Path::new(name)).map_err(Into::into);
    let text = opened.and_then(|file| {
        let text = crate::text::read(file, PROFILE_BYTES_MAX);
        text.map_err(|source| Unreadable { name: name.to_owned(), source }.into())
    });
    let text = text.map_err(|source| {
        let known = Profile::BUILT_IN.join(", ");
        NoProfile::Unknown { name: name.to_owned(), known, source }
    })?;
    let profile = Profile::from_toml(&text);
    profile.map_err(|source| NoProfile::Unusable { name: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use hyperrag_files::lines::BYTE_ORDER_MARK;

    use super::*;

    /// All messages of an error and its causes.
    fn said(error: &NoProfile) -> String {
        let (mut said, mut cause) = (error.to_string(), error.source());
        while let Some(error) = cause {
            said = format!("{said}: {error}");
            cause = error.source();
        }
        said
    }

    #[test]
    fn profiles_come_by_name_or_from_a_file() {
        assert_eq!(read_profile("plain").unwrap().name, "plain");
        let unknown = said(&read_profile("no such").unwrap_err());
        assert!(unknown.starts_with("there is no profile \"no such\": name one of"), "{unknown}");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.toml");
        let name = path.to_str().unwrap();
        let text = "name = 'own'\ndocument = '{title}{text}'\ninfix = ' '\nquery = '{query}'\n";
        std::fs::write(&path, format!("{BYTE_ORDER_MARK}{text}")).unwrap();
        assert!(!matches!(read_profile(name), Err(NoProfile::Unknown { .. })));
        std::fs::write(&path, "colour = 1").unwrap();
        let unusable = said(&read_profile(name).unwrap_err());
        assert!(unusable.starts_with(&format!("{name}: not a usable profile: ")), "{unusable}");
        std::fs::write(&path, " ".repeat(PROFILE_BYTES_MAX as usize + 1)).unwrap();
        let long = said(&read_profile(name).unwrap_err());
        let expected = format!("{name}: the profile cannot be read: more than 1048576 bytes");
        assert!(long.ends_with(&expected), "{long}");
    }
}
