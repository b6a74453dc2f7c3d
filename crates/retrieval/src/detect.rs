//! Guesses the language of texts by their scripts and, within a script, by their letters.
//!
//! In: the first texts of a corpus. Out: an analyzer whose rules fit them. It does not know what is made
//! of the guess, which is recorded wherever it is used: another version of this code may guess otherwise.

use whatlang::{Detector, Lang};

use crate::analyzer::Analyzer;

/// Bytes of all texts that are looked at.
const SAMPLE_BYTES: usize = 1 << 16;

/// Returns the analyzer of the language in which most of these texts are written, and whether that is
/// sure; [`Analyzer::NONE`] for a language without rules of its own, and where the script alone is sure. Long texts do not outweigh others:
/// each counts with its beginning.
#[must_use]
pub fn detect_language(texts: &[impl AsRef<str>]) -> (Analyzer, bool) {
    let share = SAMPLE_BYTES / texts.len().max(1);
    let mut sample = String::new();
    for text in texts.iter().map(AsRef::as_ref) {
        let end = (0..=share.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        sample.push_str(&text[..end.unwrap_or(0)]);
        sample.push('\n');
    }
    match Detector::new().detect(&sample) {
        Some(found) if found.is_reliable() => (analyzer_of(found.lang()), true),
        // Of scripts that no language here has, or several have, so much is known.
        _ if is_other_script(&sample) => (Analyzer::NONE, true),
        Some(found) => (analyzer_of(found.lang()), false),
        None => (Analyzer::NONE, false),
    }
}

/// Whether most letters are of another script than Latin.
fn is_other_script(text: &str) -> bool {
    let is_latin = |c: &char| matches!(c, '\0'..='\u{24f}' | '\u{1e00}'..='\u{1eff}');
    let letters = || text.chars().filter(|c| c.is_alphabetic());
    2 * letters().filter(is_latin).count() < letters().count()
}

fn analyzer_of(language: Lang) -> Analyzer {
    let name = match language {
        Lang::Ara => "arabic",
        Lang::Cmn => "chinese",
        Lang::Dan => "danish",
        Lang::Nld => "dutch",
        Lang::Eng => "english",
        Lang::Fin => "finnish",
        Lang::Fra => "french",
        Lang::Deu => "german",
        Lang::Ell => "greek",
        Lang::Hun => "hungarian",
        Lang::Ita => "italian",
        Lang::Jpn => "japanese",
        Lang::Kor => "korean",
        Lang::Nob => "norwegian",
        Lang::Por => "portuguese",
        Lang::Ron => "romanian",
        Lang::Rus => "russian",
        Lang::Spa => "spanish",
        Lang::Swe => "swedish",
        Lang::Tam => "tamil",
        Lang::Tha => "thai",
        Lang::Tur => "turkish",
        _ => return Analyzer::NONE,
    };
    name.parse().unwrap_or(Analyzer::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detected(texts: &[&str]) -> (&'static str, bool) {
        let (analyzer, is_sure) = detect_language(texts);
        (analyzer.name(), is_sure)
    }

    #[test]
    fn languages_are_told_apart() {
        for (text, expected) in [
            ("In winter the bees of a hive gather in a ball and keep each other warm.", "english"),
            (
                "Im Winter sammeln sich die Bienen eines Stocks zu einer Kugel und wärmen sich.",
                "german",
            ),
            ("En hiver, les abeilles d'une ruche se rassemblent et se tiennent chaud.", "french"),
            ("Зимой пчёлы одного улья собираются в шар и греют друг друга.", "russian"),
            ("Взимку бджоли одного вулика збираються в кулю і гріють одна одну.", "none"),
            ("蜜蜂在冬天聚集在一起取暖。", "chinese"),
            ("冬になるとミツバチは集まって体を温めます。", "japanese"),
            ("겨울에는 벌들이 모여 서로를 따뜻하게 한다.", "korean"),
            ("ในฤดูหนาวผึ้งจะรวมตัวกันเพื่อให้ความอบอุ่น", "thai"),
            ("Kış aylarında arılar bir araya gelir ve birbirlerini ısıtır.", "turkish"),
            ("Zimą pszczoły z jednego ula zbierają się w kulę i ogrzewają nawzajem.", "none"),
        ] {
            let (found, is_sure) = detected(&[text; 3]);
            assert_eq!((found, is_sure || found == "none"), (expected, true), "{text}");
        }
    }

    #[test]
    fn a_script_is_known_though_its_language_is_not() {
        for text in [
            "ໃນລະດູໜາວເຜິ້ງຈະລວມຕົວກັນໃນຮັງເພື່ອໃຫ້ຄວາມອົບອຸ່ນ",
            "དགུན་ཁར་སྦྲང་མ་རྣམས་ཚང་དུ་མཉམ་དུ་འཛོམས།",
            "През зимата пчелите в кошера се събират на кълбо и се топлят взаимно.",
        ] {
            assert_eq!(detected(&[text; 3]), ("none", true), "{text}");
        }
        assert!(!detected(&["Bin."]).1);
    }

    #[test]
    fn a_few_texts_in_another_language_do_not_count() {
        let (english, chinese) = (
            "The bees of a hive keep each other warm in the winter.",
            "蜜蜂在冬天聚集在一起取暖。",
        );
        assert_eq!(detected(&[english, english, english, chinese]).0, "english");
        assert_eq!(detected(&[chinese, chinese, "iPhone 12 Pro", chinese]).0, "chinese");
        assert!(!detected(&[]).1 && !detected(&["", "12 34"]).1);
    }
}
