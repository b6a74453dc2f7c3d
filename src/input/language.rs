//! Language of a store: the flag, the store that is there and the first documents come in, a name goes out.

use hyperrag_core::Document;
use hyperrag_corpus::{Corpus, Row};
use hyperrag_retrieval::{Analyzer, detect_language, recorded_analyzer};
use hyperrag_store::Store;

use crate::cli::build::{BuildArgs, LanguageChoice};
use crate::report;

/// Documents at the start of a corpus by which its language is guessed.
const LANGUAGE_DOCUMENTS: u64 = 64;

/// Characters of each of them that are looked at.
const LANGUAGE_CHARACTERS: usize = 2000;

/// Languages in whose texts the rules of older versions find no words.
const WITHOUT_BLANKS: [&str; 3] = ["chinese", "japanese", "thai"];

/// Bytes of text from which on a guess of its language is worth a warning.
const LANGUAGE_BYTES: usize = 200;

/// Returns the language of the store: the one that is named, else that of the store that is there, else
/// English, which never changes by itself. Says which one `auto` stands for, and warns where English
/// does not fit the first documents.
pub(crate) fn language(args: &BuildArgs, found: Option<&Store>, corpus: &Corpus) -> String {
    if let (Some(store), true) = (found, args.append) {
        warn_of_former_rules(args, store, corpus);
    }
    let recorded = found.map(|store| store.manifest().fingerprint.language.clone());
    match (args.language, recorded) {
        (Some(LanguageChoice::Named(language)), _) => return language.to_string(),
        (Some(LanguageChoice::Auto), Some(recorded)) => return recorded,
        (None, Some(recorded)) if args.append => return recorded,
        (None, Some(_)) => return Analyzer::ENGLISH.to_string(),
        (_, None) => {}
    }
    let texts = first_texts(args, corpus);
    let (guessed, is_sure) = detect_language(&texts);
    let first = match texts.len() {
        1 => "the first document".to_owned(),
        count => format!("the first {count} documents"),
    };
    if args.language.is_some() {
        let guessed = if is_sure { guessed } else { Analyzer::NONE };
        report::note(&format!("language: {guessed}, by {first}"));
        return guessed.to_string();
    }
    let is_long = texts.iter().map(String::len).sum::<usize>() >= LANGUAGE_BYTES;
    if is_sure && is_long && guessed != Analyzer::ENGLISH {
        let looks = match guessed {
            Analyzer::NONE => "do not look english".to_owned(),
            guessed => format!("look {guessed}, not english"),
        };
        report::warn(&format!(
            "{first} {looks}, and BM25 stems English words and leaves out English stop words: \
             `--language {guessed}` fits them, `--language english` is this without the warning"
        ));
    }
    Analyzer::ENGLISH.to_string()
}

/// Returns the beginnings of the first documents, taken or not: a search for the few that a run names could
/// read the whole corpus.
fn first_texts(args: &BuildArgs, corpus: &Corpus) -> Vec<String> {
    let limit = args.limit.map_or(LANGUAGE_DOCUMENTS, |limit| limit.min(LANGUAGE_DOCUMENTS));
    let corpus = corpus.clone().with_all();
    let rows = (0..limit).zip(corpus.rows()).map_while(|(_, row)| row.ok());
    let start = |Row { document: Document { title, text, .. }, .. }: Row| {
        title.chars().chain(['\n']).chain(text.chars()).take(LANGUAGE_CHARACTERS).collect()
    };
    rows.map(start).collect()
}

/// Warns where documents in a script without blanks come to an index of an older version.
fn warn_of_former_rules(args: &BuildArgs, store: &Store, corpus: &Corpus) {
    let manifest = store.manifest();
    let Ok(language) = manifest.fingerprint.language.parse() else { return };
    let index = store.root().join(manifest.index_folder());
    if !recorded_analyzer(&index, language).is_some_and(Analyzer::is_former) {
        return;
    }
    let (guessed, is_sure) = detect_language(&first_texts(args, corpus));
    if is_sure && WITHOUT_BLANKS.contains(&guessed.name()) {
        report::warn(&format!(
            "the first documents look {guessed}, and the index cuts words by the rules of an older \
             version, which find none in them: have it made anew by removing {} (and the index of each \
             replica) and running `hyperrag repair`",
            index.display()
        ));
    }
}
