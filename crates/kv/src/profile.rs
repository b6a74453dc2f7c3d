use serde::{Deserialize, Serialize};

use crate::Digest;

/// A title is cut at this many tokens.
pub const TITLE_TOKENS_MAX: usize = 64;

const CHAT: &str = include_str!("../profiles/chat.toml");
const PLAIN: &str = include_str!("../profiles/plain.toml");

/// How a model is prompted and scored.
///
/// The prompt is `prefix title separator text infix query`, or `prefix text infix query`. All up to
/// the query is the document part: it does not depend on the query, so it is computed once and
/// stored. Each piece is tokenised by itself: template pieces with special tokens parsed, the rest
/// as plain text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Template text before the title, or before the text.
    pub prefix: String,
    /// Template text between title and text, left out with an empty title; `None` where no title is
    /// part of the prompt.
    pub separator: Option<String>,
    /// Template text between the document's text and the query.
    pub infix: String,
    /// Text put before the query, e.g. one blank.
    pub query_prefix: String,
}

/// Why a profile is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// Not TOML, or not with these keys.
    #[error(
        "line {line} of the profile: {what}; it must be TOML with the keys name, scorer, document, \
         infix, query"
    )]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// The parser's message.
        what: String,
    },
    /// A template has a placeholder missing, twice or in the wrong place.
    #[error("the profile's {key} template {template:?} must {rule}")]
    Template {
        /// The key.
        key: &'static str,
        /// Its value.
        template: String,
        /// What holds for it.
        rule: &'static str,
    },
    /// A scorer that does not exist.
    #[error("the profile's scorer {0:?} is unknown: use query-likelihood")]
    Scorer(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    name: String,
    scorer: String,
    document: String,
    infix: String,
    query: String,
}

impl Profile {
    /// Names of the built-in profiles.
    pub const BUILT_IN: [&'static str; 2] = ["chat", "plain"];

    /// A built-in profile.
    #[must_use]
    pub fn built_in(name: &str) -> Option<Self> {
        let text = match name {
            "chat" => CHAT,
            "plain" => PLAIN,
            _ => return None,
        };
        Some(Self::from_toml(text).expect("built-in profiles are valid: a test reads them all"))
    }

    /// Reads and checks a profile.
    ///
    /// # Errors
    /// [`ProfileError`] names the key and what must hold for it. A template that names the query
    /// in the document part is refused: it could not be stored once for all queries.
    pub fn from_toml(text: &str) -> Result<Self, ProfileError> {
        let file: ProfileFile = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            ProfileError::Syntax { line, what: error.message().to_owned() }
        })?;
        if file.scorer != "query-likelihood" {
            return Err(ProfileError::Scorer(file.scorer));
        }
        let refuse = |key, template: &str, rule| {
            Err(ProfileError::Template { key, template: template.to_owned(), rule })
        };
        for (key, template) in [("document", &file.document), ("infix", &file.infix)] {
            if template.contains("{query}") {
                let rule = "not contain {query}: the document part comes first and is stored \
                            for all queries";
                return refuse(key, template, rule);
            }
        }
        let Some(before) = file.document.strip_suffix("{text}") else {
            return refuse("document", &file.document, "end with {text}");
        };
        let (prefix, separator) = match before.split_once("{title}") {
            Some((prefix, separator)) => (prefix, Some(separator)),
            None => (before, None),
        };
        if [prefix, separator.unwrap_or_default(), &file.infix]
            .iter()
            .any(|t| t.contains("{text}") || t.contains("{title}"))
        {
            return refuse(
                "document",
                &file.document,
                "name {title} and {text} once at most, in that order",
            );
        }
        let Some(query_prefix) = file.query.strip_suffix("{query}") else {
            return refuse(
                "query",
                &file.query,
                "end with {query}: a query-likelihood prompt has no suffix",
            );
        };
        Ok(Self {
            name: file.name,
            prefix: prefix.to_owned(),
            separator: separator.map(str::to_owned),
            infix: file.infix,
            query_prefix: query_prefix.to_owned(),
        })
    }

    /// Digest of what shapes the document part, and so the stored bytes.
    #[must_use]
    pub fn document_digest(&self) -> Digest {
        let Self { prefix, separator, infix, .. } = self;
        let separator =
            separator.as_ref().map_or("none".to_owned(), |separator| format!("{separator:?}"));
        Digest::of(format!("{prefix:?}\n{separator}\n{infix:?}\n{TITLE_TOKENS_MAX}\n").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_profiles_are_valid() {
        for name in Profile::BUILT_IN {
            assert_eq!(Profile::built_in(name).unwrap().name, name);
        }
        let chat = Profile::built_in("chat").unwrap();
        assert_eq!(chat.prefix, "<|im_start|>user\nPassage: ");
        assert_eq!(chat.separator.as_deref(), Some(". "));
        assert_eq!(chat.query_prefix, "");
    }

    #[test]
    fn a_template_may_have_no_title() {
        let profile = |document: &str| {
            let text = format!(
                "name='x'\nscorer='query-likelihood'\ndocument='{document}'\ninfix=''\nquery='{{query}}'"
            );
            Profile::from_toml(&text).unwrap()
        };
        let (none, empty) = (profile("P: {text}"), profile("P: {title}{text}"));
        assert_eq!((none.prefix.as_str(), none.separator.as_deref()), ("P: ", None));
        assert_eq!((empty.prefix.as_str(), empty.separator.as_deref()), ("P: ", Some("")));
        assert_ne!(none.document_digest(), empty.document_digest());
    }

    #[test]
    fn templates_are_checked() {
        let check = |document: &str, infix: &str, query: &str, expected: &str| {
            let text = format!(
                "name='x'\nscorer='query-likelihood'\ndocument='{document}'\ninfix='{infix}'\nquery='{query}'"
            );
            let error = Profile::from_toml(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("{query} {text}", "", "{query}", "not contain {query}");
        check("{text} end", "", "{query}", "end with {text}");
        check("{text} {text}", "", "{query}", "once at most");
        check("{text}", "", "{query} end", "end with {query}");
        let label = "name='x'\nscorer='label'\ndocument='{text}'\ninfix=''\nquery='{query}'";
        assert!(matches!(Profile::from_toml(label), Err(ProfileError::Scorer(_))));
    }
}
