use serde::{Deserialize, Serialize};

use crate::{Digest, ModelError, QueryPart, Scorer, Tokenize};

/// A title is cut at this many tokens.
pub const TITLE_TOKENS_MAX: usize = 64;

const BUILT_IN: [(&str, &str); 5] = [
    ("chat", include_str!("../profiles/chat.toml")),
    ("chat-gemma", include_str!("../profiles/chat-gemma.toml")),
    ("chat-llama3", include_str!("../profiles/chat-llama3.toml")),
    ("ctxl-rerank-v2", include_str!("../profiles/ctxl-rerank-v2.toml")),
    ("plain", include_str!("../profiles/plain.toml")),
];

/// Stands at the beginning of a document template for the special token that the model expects
/// there, if it expects one.
const BOS: &str = "{bos}";

/// How a model is prompted and scored.
///
/// The prompt is `prefix title separator text infix query suffix`, or `prefix text infix query
/// suffix`. All up to the query is the document part: it does not depend on the query, so it is
/// computed once and stored. Each piece is tokenised by itself: template pieces with special tokens
/// parsed, the rest as plain text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// Whether [`Profile::for_model`] puts the model's first token before the prefix.
    pub bos: bool,
    /// Template text before the title, or before the text.
    pub prefix: String,
    /// Template text between title and text, left out with an empty title; `None` where no title is
    /// part of the prompt.
    pub separator: Option<String>,
    /// Template text between the document's text and the query.
    pub infix: String,
    /// Template text before the query, e.g. one blank.
    pub query_prefix: String,
    /// Template text after the query; empty for a query likelihood.
    pub query_suffix: String,
    /// How a pair is scored.
    pub scorer: ScorerWords,
}

/// A [`Scorer`] whose tokens are still words, as a profile has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScorerWords {
    /// Mean log-probability of the query's tokens.
    QueryLikelihood,
    /// Log-odds of two words at the last position.
    Label {
        /// The word that speaks for the document.
        yes: String,
        /// The one that speaks against it.
        no: String,
    },
    /// The logit of one word at the last position.
    Logit {
        /// The word.
        token: String,
    },
}

/// The query's side of a profile in the tokens of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryTemplate {
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    scorer: Scorer,
}

impl QueryTemplate {
    /// What follows a document for the query of these tokens.
    #[must_use]
    pub fn part(&self, query: &[u32]) -> QueryPart {
        let tokens = [&self.prefix, query, &self.suffix].concat();
        QueryPart { tokens, scorer: self.scorer }
    }
}

/// Why a profile is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// Not TOML, or not with these keys.
    #[error(
        "line {line} of the profile: {what}; it must be TOML with the keys name, scorer, document, \
         infix, query, and yes and no for the scorer label, token for logit"
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
    #[error("the profile's scorer {0:?} is unknown: use query-likelihood, label or logit")]
    Scorer(String),
    /// A word that the scorer needs is missing, or one that it does not know is there.
    #[error("the profile's scorer {scorer} {rule} the key {key}")]
    Key {
        /// The scorer.
        scorer: String,
        /// `needs` or `does not use`.
        rule: &'static str,
        /// The key.
        key: &'static str,
    },
    /// A word that is not one token of the model.
    #[error(
        "the profile's {key} {word:?} must be one token of the model's vocabulary and is {}: choose \
         another word, perhaps with a blank before it",
        tokens_found(tokens)
    )]
    NotOneToken {
        /// The key.
        key: &'static str,
        /// The word.
        word: String,
        /// What it is tokenised to.
        tokens: Vec<u32>,
    },
    /// A piece that the tokenizer refuses.
    #[error("the profile's {key} {text:?} cannot be tokenised: change it in the profile")]
    Tokenizer {
        /// The key.
        key: &'static str,
        /// The text.
        text: String,
        /// Cause.
        #[source]
        source: ModelError,
    },
}

fn tokens_found(tokens: &[u32]) -> String {
    match tokens {
        [] => "none".to_owned(),
        tokens => format!("{} tokens, {tokens:?}", tokens.len()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    name: String,
    scorer: String,
    document: String,
    infix: String,
    query: String,
    yes: Option<String>,
    no: Option<String>,
    token: Option<String>,
}

impl ProfileFile {
    /// The scorer with its words, of which there must be none too many.
    fn scorer(&self) -> Result<ScorerWords, ProfileError> {
        let word = |key: &'static str, value: &Option<String>, wanted: bool| {
            let scorer = self.scorer.clone();
            let wrong = |rule| ProfileError::Key { scorer, rule, key };
            match (value, wanted) {
                (Some(value), true) => Ok(value.clone()),
                (None, false) => Ok(String::new()),
                (None, true) => Err(wrong("needs")),
                (Some(_), false) => Err(wrong("does not use")),
            }
        };
        let (label, logit) = match self.scorer.as_str() {
            "query-likelihood" => (false, false),
            "label" => (true, false),
            "logit" => (false, true),
            _ => return Err(ProfileError::Scorer(self.scorer.clone())),
        };
        let (yes, no) = (word("yes", &self.yes, label)?, word("no", &self.no, label)?);
        let token = word("token", &self.token, logit)?;
        Ok(match (label, logit) {
            (true, _) => ScorerWords::Label { yes, no },
            (_, true) => ScorerWords::Logit { token },
            _ => ScorerWords::QueryLikelihood,
        })
    }

    /// What stands before and after the query.
    fn around_query(&self, scorer: &ScorerWords) -> Result<(String, String), ProfileError> {
        let refuse = |rule| {
            let template = self.query.clone();
            Err(ProfileError::Template { key: "query", template, rule })
        };
        let Some((before, after)) = self.query.split_once("{query}") else {
            return refuse("contain {query}");
        };
        if after.contains("{query}") {
            return refuse("contain {query} once");
        }
        if *scorer == ScorerWords::QueryLikelihood && !after.is_empty() {
            return refuse("end with {query}: a query-likelihood prompt has no suffix");
        }
        Ok((before.to_owned(), after.to_owned()))
    }
}

impl Profile {
    /// Names of the built-in profiles.
    pub const BUILT_IN: [&'static str; 5] =
        [BUILT_IN[0].0, BUILT_IN[1].0, BUILT_IN[2].0, BUILT_IN[3].0, BUILT_IN[4].0];

    /// A built-in profile.
    #[must_use]
    pub fn built_in(name: &str) -> Option<Self> {
        let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name)?;
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
        let scorer = file.scorer()?;
        let (query_prefix, query_suffix) = file.around_query(&scorer)?;
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
        let (bos, prefix) = match prefix.strip_prefix(BOS) {
            Some(prefix) => (true, prefix),
            None => (false, prefix),
        };
        let others = [prefix, separator.unwrap_or_default(), &file.infix, &file.query];
        if others.iter().any(|text| text.contains(BOS)) {
            return refuse("document", &file.document, "have {bos} at its beginning alone");
        }
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
        Ok(Self {
            name: file.name,
            bos,
            prefix: prefix.to_owned(),
            separator: separator.map(str::to_owned),
            infix: file.infix,
            query_prefix,
            query_suffix,
            scorer,
        })
    }

    /// The same for a model that expects `bos` first.
    #[must_use]
    pub fn for_model(mut self, bos: Option<&str>) -> Self {
        if std::mem::take(&mut self.bos) {
            self.prefix.insert_str(0, bos.unwrap_or_default());
        }
        self
    }

    /// The query's side in the tokens of a model.
    ///
    /// # Errors
    /// [`ProfileError::NotOneToken`] for a word of the scorer that is none or several tokens.
    pub fn query_template(&self, tokenizer: &dyn Tokenize) -> Result<QueryTemplate, ProfileError> {
        let encode = |key, text: &str| {
            let encoded = tokenizer.encode_template(text);
            let text = text.to_owned();
            encoded.map_err(|source| ProfileError::Tokenizer { key, text, source })
        };
        let token = |key, word: &String| match encode(key, word)?[..] {
            [token] => Ok(token),
            ref tokens => {
                let (word, tokens) = (word.clone(), tokens.to_vec());
                Err(ProfileError::NotOneToken { key, word, tokens })
            }
        };
        let scorer = match &self.scorer {
            ScorerWords::QueryLikelihood => Scorer::QueryLikelihood,
            ScorerWords::Label { yes, no } => {
                Scorer::Label { yes: token("yes", yes)?, no: token("no", no)? }
            }
            ScorerWords::Logit { token: word } => Scorer::Logit { token: token("token", word)? },
        };
        let prefix = encode("query", &self.query_prefix)?;
        Ok(QueryTemplate { prefix, suffix: encode("query", &self.query_suffix)?, scorer })
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
    fn a_model_may_expect_a_token_first() {
        let plain = || Profile::built_in("plain").unwrap();
        assert_eq!(plain().for_model(Some("<s>")).prefix, "<s>Passage: ");
        let without = plain().for_model(None);
        assert_eq!(without.prefix, "Passage: ");
        assert_ne!(plain().for_model(Some("<s>")).document_digest(), without.document_digest());
        let chat = Profile::built_in("chat").unwrap();
        assert_eq!(chat.clone().for_model(Some("<s>")), chat);
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
        check("x{bos} {text}", "", "{query}", "at its beginning alone");
        check("{bos}{text}", "{bos}", "{query}", "at its beginning alone");
        check("{text} end", "", "{query}", "end with {text}");
        check("{text} {text}", "", "{query}", "once at most");
        check("{text}", "", "{query} end", "end with {query}");
        check("{text}", "", "Query: ", "contain {query}");
        check("{text}", "", "{query} {query}", "contain {query} once");
    }

    /// A profile with this scorer, these keys besides, and a suffix where `suffix` is one.
    fn scored(scorer: &str, keys: &str, suffix: &str) -> Result<Profile, ProfileError> {
        Profile::from_toml(&format!(
            "name='x'\nscorer='{scorer}'\ndocument='{{text}}'\ninfix=''\nquery='Q: {{query}}{suffix}'\n{keys}"
        ))
    }

    #[test]
    fn scorers_need_their_words_and_no_others() {
        let check = |scorer: &str, keys: &str, expected: &str| {
            let error = scored(scorer, keys, "").unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("likelihood", "", "unknown: use query-likelihood, label or logit");
        check("label", "yes='y'", "scorer label needs the key no");
        check("label", "yes='y'\nno='n'\ntoken='t'", "scorer label does not use the key token");
        check("logit", "", "scorer logit needs the key token");
        check("query-likelihood", "no='n'", "query-likelihood does not use the key no");
        check("query-likelihood", "maybe='n'", "unknown field `maybe`");
        let label = scored("label", "yes=' yes'\nno=' no'", "\\nRelevant:").unwrap();
        assert_eq!(
            (label.query_prefix.as_str(), label.query_suffix.as_str()),
            ("Q: ", "\\nRelevant:")
        );
        let (yes, no) = (" yes".to_owned(), " no".to_owned());
        assert_eq!(label.scorer, ScorerWords::Label { yes, no });
        // The stored part is that of any other scorer.
        let plain = scored("query-likelihood", "", "").unwrap();
        assert_eq!(label.document_digest(), plain.document_digest());
    }

    /// One token a character.
    struct Characters;

    impl Tokenize for Characters {
        fn encode_text(&self, text: &str) -> Result<Vec<u32>, ModelError> {
            Ok(text.chars().map(u32::from).collect())
        }

        fn encode_template(&self, text: &str) -> Result<Vec<u32>, ModelError> {
            match text.contains('!') {
                true => Err(ModelError::Tokenizer("no exclamation".into())),
                false => self.encode_text(text),
            }
        }
    }

    #[test]
    fn the_query_part_is_tokenised_piece_by_piece() {
        let part = |scorer: &str, keys: &str, suffix: &str| {
            let template = scored(scorer, keys, suffix)?.query_template(&Characters)?;
            Ok::<_, ProfileError>(template.part(&[7, 8]))
        };
        let likelihood = part("query-likelihood", "", "").unwrap();
        assert_eq!(likelihood.tokens, [81, 58, 32, 7, 8]);
        assert_eq!(likelihood.computed(), [81, 58, 32, 7]);
        let label = part("label", "yes='y'\nno='n'", "?").unwrap();
        assert_eq!(label.tokens, [81, 58, 32, 7, 8, 63]);
        assert_eq!(label.computed(), label.tokens);
        assert_eq!(label.scorer, Scorer::Label { yes: 121, no: 110 });
        assert_eq!(part("logit", "token='t'", "").unwrap().scorer, Scorer::Logit { token: 116 });
        let check = |keys: &str, suffix: &str, expected: &str| {
            let error = part("label", keys, suffix).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        check("yes='yes'\nno='n'", "", "yes \"yes\" must be one token");
        check("yes='yes'\nno='n'", "", "is 3 tokens, [121, 101, 115]");
        check("yes='y'\nno=''", "", "no \"\" must be one token");
        check("yes='y'\nno='n'", "!", "query \"!\" cannot be tokenised");
    }
}
