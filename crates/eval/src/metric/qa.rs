//! An answer and the right ones in, exact match and F1 out.

use std::collections::HashMap;

/// An answer as SQuAD 1.1's evaluation compares it (Rajpurkar et al. 2016): lower case, without ASCII
/// punctuation, without articles, words parted by one blank. An article is a run of letters and
/// digits, so it goes before a dash or a quotation mark beyond ASCII too.
#[must_use]
pub fn normalize_answer(text: &str) -> String {
    let lower = text.to_lowercase();
    let kept: Vec<char> = lower.chars().filter(|c| !c.is_ascii_punctuation()).collect();
    let mut without_articles = String::with_capacity(lower.len());
    for run in kept.chunk_by(|a, b| a.is_alphanumeric() == b.is_alphanumeric()) {
        match run {
            ['a'] | ['a', 'n'] | ['t', 'h', 'e'] => without_articles.push(' '),
            run => without_articles.extend(run),
        }
    }
    let words = without_articles.split(is_blank).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

/// Tells whether Python, in which SQuAD's evaluation is written, splits words at this character.
fn is_blank(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// Whether the answer is one of the right ones: 1 or 0.
#[must_use]
pub fn exact_match(answer: &str, right: &[String]) -> f64 {
    let answer = normalize_answer(answer);
    f64::from(u8::from(right.iter().any(|right| normalize_answer(right) == answer)))
}

/// The best F1 of the answer's words against those of a right answer. It is 0 where they have no word
/// in common, as in SQuAD 1.1 even where neither has any; but an empty right answer says that there is
/// none, as in SQuAD 2.0, and then no words are worth 1.
#[must_use]
pub fn f1(answer: &str, right: &[String]) -> f64 {
    let answer = normalize_answer(answer);
    if answer.is_empty() && right.iter().any(String::is_empty) {
        return 1.0;
    }
    right.iter().map(|right| f1_of(&answer, &normalize_answer(right))).fold(0.0, f64::max)
}

fn f1_of(answer: &str, right: &str) -> f64 {
    let words = |text: &str| text.split(' ').filter(|w| !w.is_empty()).count();
    let (given, wanted) = (words(answer), words(right));
    if given == 0 || wanted == 0 {
        return 0.0;
    }
    let mut counts: HashMap<&str, usize> = HashMap::new();
    right.split(' ').for_each(|word| *counts.entry(word).or_default() += 1);
    let mut common = 0;
    for word in answer.split(' ') {
        if let Some(count @ 1..) = counts.get_mut(word) {
            *count -= 1;
            common += 1;
        }
    }
    2.0 * f64::from(common) / (given + wanted) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_normalized() {
        assert_eq!(normalize_answer("  The  Quick, brown-fox's \n an A. "), "quick brownfoxs");
        assert_eq!(normalize_answer("Theatre"), "theatre");
        assert_eq!(normalize_answer("the–end, a ’b ‘An’"), "–end ’b ‘ ’");
        assert_eq!(normalize_answer("a_b the1 x\u{a0}\x1cy"), "ab the1 x y");
        assert_eq!(normalize_answer("-the-"), "");
        assert_eq!(normalize_answer("«Ä»"), "«ä»", "only ASCII punctuation goes");
    }

    #[test]
    fn the_best_of_several_counts() {
        let right = ["the Eiffel Tower".to_owned(), "Tower in Paris".to_owned()];
        assert_eq!(exact_match("Eiffel tower.", &right), 1.0);
        assert_eq!(exact_match("Eiffel", &right), 0.0);
        assert_eq!(f1("Eiffel", &right), 2.0 / 3.0);
        assert_eq!(f1("tower tower", &right[..1]), 0.5);
        assert_eq!(f1("nothing", &right), 0.0);
        assert_eq!(f1("", &right), 0.0);
        assert_eq!(exact_match("the", &["a".to_owned()]), 1.0);
        assert_eq!(f1("the", &["a".to_owned()]), 0.0);
        assert_eq!(exact_match("x", &[]), 0.0);
        let none = [String::new()];
        assert_eq!((exact_match("The.", &none), f1("The.", &none)), (1.0, 1.0));
        assert_eq!((exact_match("x", &none), f1("x", &none)), (0.0, 0.0));
    }
}
