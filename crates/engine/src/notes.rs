//! Names that a user gave, and names that a store notes: one of them comes out, and by which words a store can
//! note it for good. It opens nothing.

use hyperrag_core::Profile;

/// A name, and where it is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChosenName<'a> {
    pub(crate) name: &'a str,
    /// Whether the store's notes have it.
    pub(crate) noted: bool,
}

impl<'a> ChosenName<'a> {
    /// Chooses the given name, else the noted one.
    pub(crate) fn of(given: Option<&'a str>, noted: Option<&'a str>) -> Option<Self> {
        let given = given.map(|name| Self { name, noted: false });
        given.or(noted.map(|name| Self { name, noted: true }))
    }
}

/// Returns the absolute path of a file, which holds in every working folder.
pub(crate) fn absolute(path: &str) -> String {
    let absolute = std::path::absolute(path).ok();
    absolute.and_then(|path| path.to_str().map(str::to_owned)).unwrap_or_else(|| path.to_owned())
}

/// Returns the name of a built-in profile, else the absolute path of its file.
pub(crate) fn lasting_profile(name: &str) -> String {
    match Profile::BUILT_IN.contains(&name) {
        true => name.to_owned(),
        false => absolute(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_overrules_what_is_noted() {
        let of = |given, noted| ChosenName::of(given, noted).map(|c| (c.name, c.noted));
        assert_eq!(of(Some("a"), Some("b")), Some(("a", false)));
        assert_eq!(of(None, Some("b")), Some(("b", true)));
        assert_eq!(of(None, None), None);
    }

    #[test]
    fn profiles_are_noted_by_name_or_by_absolute_path() {
        assert_eq!(lasting_profile("plain"), "plain");
        let here = std::env::current_dir().unwrap();
        assert_eq!(lasting_profile("./own.toml"), here.join("own.toml").to_str().unwrap());
        assert_eq!(lasting_profile("/p/own.toml"), "/p/own.toml");
    }
}
