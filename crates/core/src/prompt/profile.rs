//! Prompt profiles: TOML comes in; template pieces, the scorer's words and the query's tokens go out. Knows
//! the tokenizer by its trait alone, and no model.

use serde::{Deserialize, Serialize};

use crate::error::{Classified, ErrorKind, ModelError};
use crate::fingerprint::{Digest, SCORE_TOLERANCE_MEAN_LOGPROB};
use crate::hint::Hint;
use crate::model::Tokenize;
use crate::prompt::query::{QuerySuffix, Scorer};

/// Largest number of tokens of a title. Longer ones are cut.
pub const TITLE_TOKENS_MAX: usize = 64;

const BUILT_IN: [(&str, &str); 7] = [
    ("bge-reranker-v2-gemma", include_str!("../../profiles/bge-reranker-v2-gemma.toml")),
    ("chat", include_str!("../../profiles/chat.toml")),
    ("chat-gemma", include_str!("../../profiles/chat-gemma.toml")),
    ("chat-llama3", include_str!("../../profiles/chat-llama3.toml")),
    ("ctxl-rerank-v2", include_str!("../../profiles/ctxl-rerank-v2.toml")),
    ("plain", include_str!("../../profiles/plain.toml")),
    ("qwen3-reranker", include_str!("../../profiles/qwen3-reranker.toml")),
];

/// Placeholder at the start of a document template for the special token that the model expects first, if
/// any.
const BOS: &str = "{bos}";

/// Prompt template and scorer of a model.
///
/// The prompt is `prefix title separator text infix query suffix`, or `prefix text infix query suffix`. All
/// before the query is the document part. It does not depend on the query, so it is computed once and stored.
/// Each piece is tokenised by itself: template pieces with special tokens, the rest as plain text.
///
/// A reranker that was trained with the query first has the prompt `lead query prefix title separator text
/// infix suffix`. Nothing of it can be stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Profile {
    /// Name of the profile.
    pub name: String,
    /// Whether [`Profile::for_model`] puts the model's first token at the start.
    pub bos: bool,
    /// Template text before a query that comes first; `None` if the document comes first.
    pub lead: Option<String>,
    /// Whether a blank at the end of a template piece is tokenised with the text after it, as when a prompt
    /// is tokenised in one go.
    pub join_blanks: bool,
    /// Template text before the title, or before the text.
    pub prefix: String,
    /// Template text between title and text, left out with an empty title; `None` if the prompt has no title.
    pub separator: Option<String>,
    /// Template text between the document's text and the query.
    pub infix: String,
    /// Template text before the query, e.g. one blank.
    pub query_prefix: String,
    /// Template text after the query; empty for a query likelihood.
    pub query_suffix: String,
    /// Scorer of a pair, as words.
    pub scorer: ScorerSpec,
}

/// A [`Scorer`] whose tokens are still words, as a profile has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScorerSpec {
    /// Mean log-probability of the query's tokens.
    QueryLikelihood,
    /// Log-odds of two words at the last position.
    Label {
        /// The word that speaks for the document.
        yes: String,
        /// The word that speaks against the document.
        no: String,
    },
    /// The logit of one word at the last position.
    Logit {
        /// The word.
        token: String,
    },
}

/// The query's side of a profile as tokens of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryTemplate {
    /// Tokens before the query. `blank`, if not empty, is tokenised with the query.
    prefix: Vec<u32>,
    blank: &'static str,
    /// Tokens of `blank` alone.
    blank_tokens: Vec<u32>,
    suffix: Vec<u32>,
    scorer: Scorer,
    query_first: bool,
}

impl QueryTemplate {
    /// Returns how many tokens stand around every query.
    #[must_use]
    pub fn fixed_tokens(&self) -> usize {
        self.prefix.len() + self.suffix.len()
    }

    /// Returns the tokens of a prompt that depend on the query; `None` if the query has no token.
    ///
    /// # Errors
    /// [`ModelError`] if the tokenizer fails.
    pub fn tokens(
        &self,
        tokenizer: &dyn Tokenize,
        query: &str,
    ) -> Result<Option<QueryTokens>, ModelError> {
        let query = tokenizer.encode_text(&[self.blank, query].concat())?;
        if query == self.blank_tokens {
            return Ok(None);
        }
        let query = [&self.prefix[..], &query].concat();
        let (lead, mut tokens) =
            if self.query_first { (query, Vec::new()) } else { (Vec::new(), query) };
        tokens.extend(&self.suffix);
        Ok(Some(QueryTokens { lead, suffix: QuerySuffix { tokens, scorer: self.scorer } }))
    }
}

/// Tokens of a prompt that depend on the query, or follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueryTokens {
    /// Tokens before every document. There are none unless the query comes first.
    pub lead: Vec<u32>,
    /// Tokens after every document, with their scorer.
    pub suffix: QuerySuffix,
}

/// Reason why a profile is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProfileError {
    /// The text is not TOML, or has other keys.
    #[error(
        "line {line} of the profile: {what}; it must be TOML with the keys name, scorer, document, \
         infix, query, perhaps join_blanks, and yes and no for the scorer label, token for logit"
    )]
    Syntax {
        /// Line, counted from 1.
        line: usize,
        /// The parser's message.
        what: String,
    },
    /// A template has a placeholder missing, twice or in the wrong place.
    #[error("the profile's {key} template {template:?} must {rule}")]
    Template {
        /// The key.
        key: &'static str,
        /// Value of the key.
        template: String,
        /// Rule that the value breaks.
        rule: &'static str,
    },
    /// A scorer that does not exist.
    #[error("the profile's scorer {0:?} is unknown: use query-likelihood, label or logit")]
    Scorer(String),
    /// A word that the scorer needs is missing, or one that it does not use is given.
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
        /// Tokens of the word.
        tokens: Vec<u32>,
    },
    /// A template piece that the tokenizer refuses.
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

impl Classified for ProfileError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Tokenizer { source, .. } => source.kind(),
            _ => ErrorKind::Input,
        }
    }

    fn hint(&self) -> Option<Hint> {
        match self {
            Self::Tokenizer { source, .. } => source.hint(),
            _ => None,
        }
    }
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
    #[serde(default)]
    join_blanks: bool,
}

impl ScorerSpec {
    /// Largest difference of scores between kernels; `None` for labels and logits, which have the model's own
    /// scale.
    #[must_use]
    pub fn tolerance(&self) -> Option<f32> {
        match self {
            Self::QueryLikelihood => Some(SCORE_TOLERANCE_MEAN_LOGPROB),
            Self::Label { .. } | Self::Logit { .. } => None,
        }
    }
}

impl ProfileFile {
    /// Reads the scorer with its words. Words that it does not use are refused.
    fn scorer(&self) -> Result<ScorerSpec, ProfileError> {
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
            (true, _) => ScorerSpec::Label { yes, no },
            (_, true) => ScorerSpec::Logit { token },
            _ => ScorerSpec::QueryLikelihood,
        })
    }

    /// Splits the document template at a query that comes first, into the text before it and the rest.
    fn around_first_query(&self) -> Result<(Option<String>, &str), ProfileError> {
        match self.document.split_once("{query}") {
            None => Ok((None, &self.document)),
            Some((lead, document)) if !document.contains("{query}") => {
                Ok((Some(lead.to_owned()), document))
            }
            Some(_) => {
                let template = self.document.clone();
                let rule = "not contain {query} twice";
                Err(ProfileError::Template { key: "document", template, rule })
            }
        }
    }

    /// Returns the template text before and after the query. If the query is `first`, there is only text
    /// after the document.
    fn around_query(
        &self,
        scorer: &ScorerSpec,
        first: bool,
    ) -> Result<(String, String), ProfileError> {
        let refuse = |rule| {
            let template = self.query.clone();
            Err(ProfileError::Template { key: "query", template, rule })
        };
        if first {
            return match (self.query.contains("{query}"), scorer, self.query.is_empty()) {
                (true, ..) => refuse("not contain {query}, which the document template has"),
                (_, ScorerSpec::QueryLikelihood, _) => {
                    refuse("contain {query}: its likelihood is that after the document")
                }
                (.., true) => refuse("not be empty: the score is read after it"),
                _ => Ok((String::new(), self.query.clone())),
            };
        }
        let Some((before, after)) = self.query.split_once("{query}") else {
            return refuse("contain {query}");
        };
        if after.contains("{query}") {
            return refuse("contain {query} once");
        }
        if *scorer == ScorerSpec::QueryLikelihood && !after.is_empty() {
            return refuse("end with {query}: a query-likelihood prompt has no suffix");
        }
        Ok((before.to_owned(), after.to_owned()))
    }
}

impl Profile {
    /// Names of the built-in profiles.
    pub const BUILT_IN: [&'static str; 7] = {
        let (mut names, mut i) = ([""; 7], 0);
        while i < names.len() {
            names[i] = BUILT_IN[i].0;
            i += 1;
        }
        names
    };

    /// Returns the built-in profile of this name.
    #[must_use]
    pub fn built_in(name: &str) -> Option<Self> {
        let (_, text) = BUILT_IN.iter().find(|(known, _)| *known == name)?;
        Some(Self::from_toml(text).expect("built-in profiles are valid: a test reads them all"))
    }

    /// Reads and checks a profile.
    ///
    /// # Errors
    /// [`ProfileError`] with the key and the rule that it breaks.
    pub fn from_toml(text: &str) -> Result<Self, ProfileError> {
        let file: ProfileFile = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            ProfileError::Syntax { line, what: error.message().to_owned() }
        })?;
        let scorer = file.scorer()?;
        let (lead, document) = file.around_first_query()?;
        let (query_prefix, query_suffix) = file.around_query(&scorer, lead.is_some())?;
        let refuse = |key, template: &str, rule| {
            Err(ProfileError::Template { key, template: template.to_owned(), rule })
        };
        if file.infix.contains("{query}") {
            let rule = "not contain {query}: it is part of what is stored for all queries";
            return refuse("infix", &file.infix, rule);
        }
        let Some(before) = document.strip_suffix("{text}") else {
            return refuse("document", &file.document, "end with {text}");
        };
        let (prefix, separator) = match before.split_once("{title}") {
            Some((prefix, separator)) => (prefix, Some(separator)),
            None => (before, None),
        };
        let first = lead.as_deref().unwrap_or(prefix);
        let bos = first.starts_with(BOS);
        let first = first.strip_prefix(BOS).unwrap_or(first).to_owned();
        let (lead, prefix) = match lead {
            Some(_) => (Some(first), prefix.to_owned()),
            None => (None, first),
        };
        let profile = Self {
            name: file.name.clone(),
            bos,
            lead,
            join_blanks: file.join_blanks,
            prefix,
            separator: separator.map(str::to_owned),
            infix: file.infix.clone(),
            query_prefix,
            query_suffix,
            scorer,
        };
        let has = |placeholder: &str| profile.pieces().any(|piece| piece.contains(placeholder));
        if has(BOS) {
            return refuse("document", &file.document, "have {bos} at its beginning alone");
        }
        if has("{text}") || has("{title}") {
            let rule = "name {title} and {text} once at most, in that order";
            return refuse("document", &file.document, rule);
        }
        Ok(profile)
    }

    /// Lists all template text.
    fn pieces(&self) -> impl Iterator<Item = &str> {
        let Self { prefix, infix, query_prefix, query_suffix, .. } = self;
        let always = [prefix, infix, query_prefix, query_suffix];
        let others = self.lead.iter().chain(&self.separator);
        always.into_iter().chain(others).map(String::as_str)
    }

    /// Puts the token `bos`, which the model expects first, at the start if the profile has `{bos}` there.
    #[must_use]
    pub fn for_model(mut self, bos: Option<&str>) -> Self {
        if std::mem::take(&mut self.bos) {
            let first = self.lead.as_mut().unwrap_or(&mut self.prefix);
            first.insert_str(0, bos.unwrap_or_default());
        }
        self
    }

    /// Splits a trailing blank off a template piece if it is to be tokenised with the text that follows.
    #[must_use]
    pub fn piece<'a>(&self, template: &'a str) -> (&'a str, &'static str) {
        match template.strip_suffix(' ').filter(|_| self.join_blanks) {
            Some(template) => (template, " "),
            None => (template, ""),
        }
    }

    /// Tokenises the query's side for a model.
    ///
    /// # Errors
    /// [`ProfileError::NotOneToken`] for a word of the scorer that is not exactly one token.
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
            ScorerSpec::QueryLikelihood => Scorer::QueryLikelihood,
            ScorerSpec::Label { yes, no } => {
                Scorer::Label { yes: token("yes", yes)?, no: token("no", no)? }
            }
            ScorerSpec::Logit { token: word } => Scorer::Logit { token: token("token", word)? },
        };
        let before = match &self.lead {
            Some(lead) => ("document", lead),
            None => ("query", &self.query_prefix),
        };
        let (prefix, blank) = self.piece(before.1);
        let blank_tokens = tokenizer.encode_text(blank).map_err(|source| {
            ProfileError::Tokenizer { key: before.0, text: blank.to_owned(), source }
        })?;
        Ok(QueryTemplate {
            prefix: encode(before.0, prefix)?,
            blank,
            blank_tokens,
            suffix: encode("query", &self.query_suffix)?,
            scorer,
            query_first: self.lead.is_some(),
        })
    }

    /// Digest of the template pieces that shape the document part, and so the stored bytes.
    #[must_use]
    pub fn document_digest(&self) -> Digest {
        let Self { prefix, separator, infix, .. } = self;
        let separator =
            separator.as_ref().map_or("none".to_owned(), |separator| format!("{separator:?}"));
        let mut text = format!("{prefix:?}\n{separator}\n{infix:?}\n{TITLE_TOKENS_MAX}\n");
        if self.join_blanks {
            text += "join_blanks\n";
        }
        Digest::of(text.as_bytes())
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
    fn changed_profiles_are_refused_or_read_without_a_panic() {
        // Pieces of a profile's syntax and of templates.
        let words = [
            "{text}", "{query}", "{title}", "{bos}", "{", "}", "'", "\"", "\n", "=", "[", "\\",
            "ü", "",
        ];
        let mut taken = 0;
        for (_, text) in BUILT_IN {
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            for (number, at) in places.iter().enumerate() {
                for (i, word) in words.iter().enumerate() {
                    // Inserted there, or in place of some characters.
                    let end = places.get(number + (i + number) % 4).unwrap_or(at);
                    let changed = [&text[..*at], word, &text[*end..]].concat();
                    taken += usize::from(Profile::from_toml(&changed).is_ok());
                }
            }
        }
        assert!(taken > 0);
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
        check("{query} {text}", "", "{query}", "which the document template has");
        check("{query} {query} {text}", "", "", "not contain {query} twice");
        check("{query} {text}", "", "end", "its likelihood is that after the document");
        check("{text}", "{query}", "{query}", "stored for all queries");
        check("x{bos} {text}", "", "{query}", "at its beginning alone");
        check("{bos}{text}", "{bos}", "{query}", "at its beginning alone");
        check("{text} end", "", "{query}", "end with {text}");
        check("{text} {text}", "", "{query}", "once at most");
        check("{text}", "", "{query} end", "end with {query}");
        check("{text}", "", "Query: ", "contain {query}");
        check("{text}", "", "{query} {query}", "contain {query} once");
    }

    /// Reads a profile with this scorer, these keys and this suffix.
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
        assert_eq!(label.scorer, ScorerSpec::Label { yes, no });
        // The stored part is the same for every scorer.
        let plain = scored("query-likelihood", "", "").unwrap();
        assert_eq!(label.document_digest(), plain.document_digest());
    }

    /// Tokenizer with one token a character.
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
    fn a_query_may_come_first() {
        let text = "name='x'\nscorer='logit'\ntoken='t'\ndocument='{bos}A: {query}|B: {title} {text}'\n\
            infix='i'\nquery='?'\njoin_blanks=true";
        let profile = Profile::from_toml(text).unwrap().for_model(Some("<s>"));
        assert_eq!((profile.lead.as_deref(), profile.prefix.as_str()), (Some("<s>A: "), "|B: "));
        assert_eq!(profile.piece(&profile.prefix), ("|B:", " "));
        let template = profile.query_template(&Characters).unwrap();
        let codes = |text: &str| text.chars().map(u32::from).collect::<Vec<_>>();
        let tokens = |template: QueryTemplate| {
            let QueryTokens { lead, suffix } = template.tokens(&Characters, "q").unwrap().unwrap();
            assert_eq!(template.tokens(&Characters, "").unwrap(), None, "no token");
            (lead, suffix.tokens)
        };
        assert_eq!(tokens(template), (codes("<s>A: q"), codes("?")));
        let plain = Profile::built_in("plain").unwrap().query_template(&Characters).unwrap();
        assert_eq!(tokens(plain), (Vec::new(), codes(" q")));
        let first = |name: &str| Profile::built_in(name).unwrap().lead.is_some();
        let names = Profile::BUILT_IN.into_iter().filter(|name| first(name));
        assert_eq!(names.collect::<Vec<_>>(), ["bge-reranker-v2-gemma", "qwen3-reranker"]);
    }

    #[test]
    fn the_query_part_is_tokenised_piece_by_piece() {
        let part = |scorer: &str, keys: &str, suffix: &str| {
            let template = scored(scorer, keys, suffix)?.query_template(&Characters)?;
            Ok::<_, ProfileError>(
                template.tokens(&Characters, "\u{7}\u{8}").unwrap().unwrap().suffix,
            )
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
