//! Compounds cut into their parts.
//!
//! In: a word, the letters that may link parts, and a way to tell whether a part is known. Out: the parts. It
//! does not know indexes.

/// Letters that a part has at least.
pub(crate) const PART_LETTERS: usize = 4;

/// Returns the letters that may stand between the parts of a compound; `None` for a language that writes the
/// parts as words of their own.
pub(crate) fn links(language: &str) -> Option<&'static [&'static str]> {
    Some(match language {
        "german" => &["s", "n", "en", "es", "e"],
        "dutch" => &["s", "e", "en", "n"],
        "danish" | "norwegian" => &["s", "e"],
        "swedish" => &["s"],
        "finnish" => &["n"],
        "hungarian" => &[],
        _ => return None,
    })
}

/// The best way to cut the rest of a word, as far as it is known.
#[derive(Clone, Copy)]
struct Cut {
    /// Number of parts, and of letters that link them: the fewer the better.
    cost: (usize, usize),
    /// End of the first part, and start of the next one.
    end: usize,
    next: usize,
}

/// Cuts a word into two parts or more that are known: as few as can be, with as few letters between them as
/// can be, and of equal cuts the one with the longest first part. Returns none if there is no such cut.
///
/// # Errors
/// The errors of `known`.
pub(crate) fn cut<E>(
    word: &str,
    links: &[&str],
    known: &mut impl FnMut(&str) -> Result<bool, E>,
) -> Result<Vec<String>, E> {
    // Starts of the letters, and the end of the word.
    let starts: Vec<usize> = word.char_indices().map(|(at, _)| at).chain([word.len()]).collect();
    let letters = starts.len() - 1;
    let mut cuts: Vec<Option<Cut>> = vec![None; letters + 1];
    for start in (0..=letters.saturating_sub(PART_LETTERS)).rev() {
        for end in (start + PART_LETTERS..=letters).rev() {
            let Some((cost, next)) = rest(word, &starts, end, links, &cuts) else { continue };
            let is_better = cuts[start].is_none_or(|best| cost < best.cost);
            let is_whole = (start, end) == (0, letters);
            if is_better && !is_whole && known(&word[starts[start]..starts[end]])? {
                cuts[start] = Some(Cut { cost, end, next });
            }
        }
    }
    let (mut parts, mut start) = (Vec::new(), 0);
    while let Some(Cut { end, next, .. }) = cuts[start] {
        parts.push(word[starts[start]..starts[end]].to_owned());
        start = next;
    }
    Ok(parts)
}

/// Returns the least cost of a part that ends at the letter `end` and of what follows it, and where the next
/// part begins.
fn rest(
    word: &str,
    starts: &[usize],
    end: usize,
    links: &[&str],
    cuts: &[Option<Cut>],
) -> Option<((usize, usize), usize)> {
    if end == starts.len() - 1 {
        return Some(((1, 0), end));
    }
    let after = |link: &&str| {
        let next = end + link.len();
        let links = word[starts[end]..].starts_with(*link);
        let (parts, linking) = cuts.get(next).filter(|_| links)?.as_ref()?.cost;
        Some(((parts + 1, linking + link.len()), next))
    };
    [""].iter().chain(links).filter_map(after).min()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn parts(word: &str, known: &[&str]) -> String {
        let mut known = |part: &str| Ok::<_, Infallible>(known.contains(&part));
        let Ok(parts) = cut(word, links("german").unwrap(), &mut known);
        parts.join("+")
    }

    #[test]
    fn a_compound_is_cut_into_parts_that_are_known() {
        let known = ["fehler", "quelle", "donau", "dampf", "schiff", "fahrt", "bienen", "stock"];
        for (word, expected) in [
            ("fehlerquelle", "fehler+quelle"),
            ("donaudampfschifffahrt", "donau+dampf+schiff+fahrt"),
            ("schifffahrtsquelle", "schiff+fahrt+quelle"),
            ("bienenstock", "bienen+stock"),
            ("fehler", ""),
            ("fehlerquell", ""),
            ("fehlerxquelle", ""),
            ("quellefehlers", ""),
            ("", ""),
            ("ab", ""),
        ] {
            assert_eq!(parts(word, &known), expected, "{word}");
        }
    }

    #[test]
    fn the_fewest_parts_and_links_are_taken() {
        let known = ["arbeit", "arbeits", "platz", "haus", "hausbau", "baum", "meister", "übung"];
        assert_eq!(parts("arbeitsplatz", &known), "arbeits+platz");
        assert_eq!(parts("arbeitsplatz", &["arbeit", "platz"]), "arbeit+platz");
        assert_eq!(
            parts("hausbaumeister", &["haus", "bau", "hausbau", "meister"]),
            "hausbau+meister"
        );
        assert_eq!(parts("bausbaus", &["baus"]), "baus+baus");
        assert_eq!(parts("übungsplatz", &known), "übung+platz");
        assert_eq!(parts("hautarzt", &["haut", "arz"]), "", "no part has three letters");
    }

    #[test]
    fn languages_that_write_parts_apart_have_no_links() {
        assert_eq!((links("english"), links("none")), (None, None));
        assert_eq!(links("hungarian"), Some(&[][..]));
    }
}
