//! Rewrites what a chat template may say and the engine reads otherwise: ends of lines, blocks `generation`, the
//! operator `%`, and loops over texts. Refuses what nothing stands for.
//!
//! In: a template. Out: a template that prints the same. It renders nothing.

use std::borrow::Cow;
use std::ops::Range;

use minijinja::Error;

use crate::generate::filters::EACH;
use crate::generate::spelling::invalid;

/// Name of the filter that stands for the operator `%`.
pub(super) const PERCENT: &str = "percent__";

/// A part of a template in which there are tags.
enum Part<'a> {
    /// Inside of `{% ... %}`, with its place.
    Block(&'a str, Range<usize>),
    /// Inside of `{{ ... }}`, with its place.
    Expression(&'a str, Range<usize>),
}

/// Lists the tags of a template. Comments, and blocks `raw` with what is in them, are left out.
fn parts(template: &str) -> Vec<Part<'_>> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Some(start) = template[at..].find('{').map(|found| at + found) {
        let inside = start + 2;
        at = match template.as_bytes().get(start + 1) {
            Some(b'#') => end_of(template, inside, "#}"),
            Some(b'{') => {
                let end = end_of_tag(template, inside, "}}");
                parts.push(Part::Expression(&template[inside..end], inside..end));
                end
            }
            Some(b'%') => {
                let end = end_of_tag(template, inside, "%}");
                let text = &template[inside..end];
                match word(text) == "raw" {
                    true => end_of_raw(template, end),
                    false => {
                        parts.push(Part::Block(text, inside..end));
                        end
                    }
                }
            }
            _ => start + 1,
        };
    }
    parts
}

/// Returns the text of a tag without the marks that trim blanks.
fn word(text: &str) -> &str {
    text.trim_matches(['-', '+']).trim()
}

fn end_of(template: &str, from: usize, end: &str) -> usize {
    template
        .get(from..)
        .and_then(|rest| rest.find(end))
        .map_or(template.len(), |found| from + found)
}

/// Finds the end of a tag. Ends in texts are none.
fn end_of_tag(template: &str, from: usize, end: &str) -> usize {
    let (mut quote, mut escaped) = (None, false);
    for (at, byte) in template.bytes().enumerate().skip(from) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if byte == b'\\' => escaped = true,
            Some(open) if byte == open => quote = None,
            Some(_) => {}
            None if b"'\"".contains(&byte) => quote = Some(byte),
            None if template.as_bytes()[at..].starts_with(end.as_bytes()) => return at,
            None => {}
        }
    }
    template.len()
}

/// Finds the tag that ends a block `raw`.
fn end_of_raw(template: &str, from: usize) -> usize {
    let mut at = from;
    loop {
        let start = end_of(template, at, "{%");
        if start == template.len() {
            return start;
        }
        let end = end_of(template, start + 2, "%}");
        if word(&template[start + 2..end]) == "endraw" {
            return end;
        }
        at = start + 2;
    }
}

/// Returns a template that the engine renders as jinja2 renders this one.
///
/// # Errors
/// The name of what the template uses and the engine lacks.
pub(super) fn rewritten(template: &str) -> Result<String, Error> {
    let template = with_plain_lines(template);
    let template = without_generation(&template);
    refuse_special_arguments(&template)?;
    refuse_what_reads_otherwise(&template)?;
    let template = without_percent(&template);
    Ok(with_lists(&template).into_owned())
}

/// Ends each line with a line feed alone.
fn with_plain_lines(template: &str) -> Cow<'_, str> {
    match template.contains('\r') {
        true => template.replace("\r\n", "\n").replace('\r', "\n").into(),
        false => template.into(),
    }
}

/// Refuses macros that read arguments that they do not name.
fn refuse_special_arguments(template: &str) -> Result<(), Error> {
    let mut depth = 0_usize;
    for part in parts(template) {
        let (Part::Block(text, _) | Part::Expression(text, _)) = part;
        let tokens = tokens(text.trim_start_matches(['-', '+']));
        let names = ["varargs", "kwargs"];
        let used = tokens.iter().enumerate().find(|(place, token)| {
            let before = place.checked_sub(1).map(|before| tokens[before].text);
            let after = tokens.get(place + 1).map(|after| after.text);
            names.contains(&token.text) && before != Some(".") && after != Some("=")
        });
        let first = tokens.first().map_or("", |first| first.text);
        let mut bound = tokens.iter().take(match first {
            "macro" => tokens.len(),
            "set" => 2,
            "for" => tokens.iter().take_while(|token| token.text != "in").count(),
            _ => 0,
        });
        if bound.any(|token| names.contains(&token.text)) {
            // The names are the template's own.
            return Ok(());
        }
        match (first, used) {
            ("macro" | "call", None) => depth += 1,
            ("endmacro" | "endcall", _) => depth = depth.saturating_sub(1),
            (_, Some((_, name))) if depth > 0 => {
                return Err(invalid(format!("{} of a macro is not supported", name.text)));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Refuses escapes of texts that the engine leaves as they are, and defaults of a macro that name its arguments.
fn refuse_what_reads_otherwise(template: &str) -> Result<(), Error> {
    for part in parts(template) {
        let (Part::Block(text, _) | Part::Expression(text, _)) = part;
        let tokens = tokens(text.trim_start_matches(['-', '+']));
        for text in
            tokens.iter().map(|token| token.text).filter(|text| text.starts_with(['\'', '"']))
        {
            let mut characters = text.chars();
            while let Some(character) = characters.next() {
                let escaped = if character == '\\' { characters.next() } else { None };
                if let Some(escaped @ ('a' | 'v' | 'U' | 'N' | '\n')) = escaped {
                    return Err(invalid(format!(
                        "the escape \\{} is not supported",
                        escaped.escape_debug()
                    )));
                }
            }
        }
        if tokens.first().is_some_and(|first| first.text == "macro") {
            refuse_dependent_defaults(&tokens)?;
        }
    }
    Ok(())
}

fn refuse_dependent_defaults(tokens: &[Token<'_>]) -> Result<(), Error> {
    let (mut depth, mut default, mut names) = (0_usize, false, Vec::new());
    for (place, token) in tokens.iter().enumerate() {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            "," if depth == 1 => default = false,
            "=" if depth == 1 => default = true,
            name if depth == 1 && !default => names.push(name),
            name if names.contains(&name) && tokens[place - 1].text != "." => {
                let what = format!("a default of a macro that names its argument {name}");
                return Err(invalid(format!("{what} is not supported")));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Has each loop run over a list where it would run over a text.
fn with_lists(template: &str) -> Cow<'_, str> {
    let tags = parts(template).into_iter().filter_map(|part| match part {
        Part::Block(text, at) => Some((at, over_list(text)?)),
        Part::Expression(..) => None,
    });
    replaced(template, tags.collect())
}

/// Puts the filter [`EACH`] behind what a loop runs over; `None` if the tag begins no loop.
fn over_list(text: &str) -> Option<String> {
    let tokens = tokens(text.trim_end_matches(['-', '+']));
    let start = tokens.iter().position(|token| !["-", "+"].contains(&token.text))?;
    if tokens[start].text != "for" {
        return None;
    }
    let first = start + 1 + tokens[start..].iter().position(|token| token.text == "in")?;
    let mut depth = 0_usize;
    let end = tokens.iter().enumerate().skip(first).find(|(place, token)| {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth = depth.saturating_sub(1),
            _ => {}
        }
        let last = token.text == "recursive" && place + 1 == tokens.len();
        depth == 0 && (token.text == "if" || last)
    });
    let last = end.map_or(tokens.len(), |(end, _)| end).checked_sub(1)?;
    let place = tokens.get(first)?.at.start..tokens.get(last).filter(|_| last >= first)?.at.end;
    let (before, over, after) = (&text[..place.start], &text[place.clone()], &text[place.end..]);
    Some(format!("{before}({over})|{EACH}{after}"))
}

/// Puts blocks `with`, which print what is in them, in the place of blocks `generation`.
fn without_generation(template: &str) -> Cow<'_, str> {
    let tags = parts(template).into_iter().filter_map(|part| match part {
        Part::Block(text, at) => match word(text) {
            "generation" => Some((at, text.replace("generation", "with"))),
            "endgeneration" => Some((at, text.replace("endgeneration", "endwith"))),
            _ => None,
        },
        Part::Expression(..) => None,
    });
    replaced(template, tags.collect())
}

/// Puts the filter [`PERCENT`] in the place of each operator `%`.
fn without_percent(template: &str) -> Cow<'_, str> {
    let tags = parts(template).into_iter().filter_map(|part| {
        let (Part::Block(text, at) | Part::Expression(text, at)) = part;
        let inner = text.trim_end_matches(['-', '+']);
        let rewritten = filtered(inner)?;
        Some((at.start..at.start + inner.len(), rewritten))
    });
    replaced(template, tags.collect())
}

fn replaced(template: &str, places: Vec<(Range<usize>, String)>) -> Cow<'_, str> {
    if places.is_empty() {
        return Cow::Borrowed(template);
    }
    let (mut text, mut end) = (String::new(), 0);
    for (at, part) in places {
        text.extend([&template[end..at.start], &part]);
        end = at.end;
    }
    text.push_str(&template[end..]);
    Cow::Owned(text)
}

/// A token of an expression, with its place.
struct Token<'a> {
    text: &'a str,
    at: Range<usize>,
}

impl Token<'_> {
    fn is_name(&self) -> bool {
        self.text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
    }

    fn is_operand(&self) -> bool {
        self.is_name() || self.text.starts_with(['\'', '"'])
    }
}

/// Operators of several characters.
const LONG: [&str; 6] = ["**", "//", "==", "!=", "<=", ">="];

fn tokens(text: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut at) = (Vec::new(), 0);
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let length = match first {
            '\'' | '"' => {
                let mut escaped = false;
                let end = rest.char_indices().skip(1).find(|(_, c)| {
                    let ends = *c == first && !escaped;
                    escaped = *c == '\\' && !escaped;
                    ends
                });
                end.map_or(rest.len(), |(end, _)| end + 1)
            }
            c if c.is_alphanumeric() || c == '_' => {
                rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
            }
            c => match LONG.iter().find(|long| rest.starts_with(**long)) {
                Some(long) => long.len(),
                None => c.len_utf8(),
            },
        };
        if !first.is_whitespace() {
            tokens.push(Token { text: &rest[..length], at: at..at + length });
        }
        at += length;
    }
    tokens
}

/// Rewrites an expression; `None` if there is nothing to rewrite.
fn filtered(text: &str) -> Option<String> {
    let tokens = tokens(text);
    let mut edits: Vec<(usize, String)> = Vec::new();
    let mut removed = Vec::new();
    for (place, token) in tokens.iter().enumerate() {
        if token.text != "%" || !follows_lone_operand(&tokens[..place]) {
            continue;
        }
        let end = end_of_operand(&tokens, place + 1)?;
        removed.push(token.at.clone());
        edits.push((token.at.start, format!("|{PERCENT}(")));
        edits.push((tokens[end - 1].at.end, ")".to_owned()));
    }
    if removed.is_empty() {
        return None;
    }
    // Ends of operands that lie in one another come in any order.
    edits.sort_by_key(|(at, _)| *at);
    let (mut rewritten, mut from) = (String::new(), 0);
    for (at, inserted) in edits {
        rewritten.push_str(&text[from..at]);
        rewritten.push_str(&inserted);
        from = if removed.iter().any(|range| range.start == at) { at + 1 } else { at };
    }
    rewritten.push_str(&text[from..]);
    Some(rewritten)
}

/// Whether the tokens end in an operand that no operator before it takes first.
fn follows_lone_operand(before: &[Token<'_>]) -> bool {
    let mut at = before.len();
    loop {
        // One part: a bracket with what is in it, or a name or text.
        let Some(last) = at.checked_sub(1).map(|last| &before[last]) else { return false };
        at = match last.text {
            ")" | "]" | "}" => match start_of_bracket(before, at - 1) {
                Some(start) => start,
                None => return false,
            },
            _ if last.is_operand() => at - 1,
            _ => return false,
        };
        let Some(previous) = at.checked_sub(1).map(|previous| &before[previous]) else {
            return true;
        };
        match previous.text {
            "." | "|" => at -= 1,
            "*" | "/" | "//" | "**" => return false,
            // What is called or indexed stands before its bracket.
            _ if before[at].text.starts_with(['(', '[']) && ends_operand(previous) => {}
            _ => return true,
        }
    }
}

fn ends_operand(token: &Token<'_>) -> bool {
    let words = ["and", "or", "not", "in", "is", "if", "else", "elif", "set"];
    [")", "]"].contains(&token.text) || token.is_operand() && !words.contains(&token.text)
}

fn start_of_bracket(tokens: &[Token<'_>], end: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for at in (0..=end).rev() {
        match tokens[at].text {
            ")" | "]" | "}" => depth += 1,
            "(" | "[" | "{" => {
                depth -= 1;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

fn end_of_bracket(tokens: &[Token<'_>], start: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(start) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
    }
    None
}

/// Returns the end of the operand that begins at `start`: a name, text or bracket with its attributes, calls
/// and filters.
fn end_of_operand(tokens: &[Token<'_>], start: usize) -> Option<usize> {
    let mut at = start;
    while tokens.get(at).is_some_and(|token| ["-", "+"].contains(&token.text)) {
        at += 1;
    }
    at = match tokens.get(at)? {
        Token { text: "(" | "[" | "{", .. } => end_of_bracket(tokens, at)?,
        token if token.is_operand() => at + 1,
        _ => return None,
    };
    loop {
        at = match tokens.get(at).map(|token| token.text) {
            Some("." | "|") if tokens.get(at + 1).is_some_and(Token::is_name) => at + 2,
            Some("(" | "[") => end_of_bracket(tokens, at)?,
            _ => return Some(at),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_mark_generated_text_print_it() {
        let check = |template: &str, expected: &str| {
            assert_eq!(without_generation(template), expected);
        };
        check("a{% generation %}b{% endgeneration %}", "a{% with %}b{% endwith %}");
        check("{%- generation -%}b{%+endgeneration-%}", "{%- with -%}b{%+endwith-%}");
        for kept in [
            "{{ '{% generation %}' }}",
            "{# {% generation %} #}",
            "{% raw %}{% generation %}{% endraw %}",
            "{% set generation = 1 %}",
            "generation {% ",
            "{{ 'open",
            "{",
        ] {
            check(kept, kept);
        }
    }

    #[test]
    fn percent_becomes_a_filter() {
        let check = |text: &str, expected: &str| {
            let template = format!("{{{{ {text} }}}}");
            let expected = format!("{{{{ {} }}}}", expected.replace('!', PERCENT));
            assert_eq!(without_percent(&template), expected);
        };
        check("'%s' % x", "'%s' |!( x)");
        check("a.b[0] % (c, d)", "a.b[0] |!( (c, d))");
        check("f(x % 2) % g(1).h|upper ~ y", "f(x |!( 2)) |!( g(1).h|upper) ~ y");
        check("'%s' % 'a%b' % c", "'%s' |!( 'a%b') |!( c)");
        check("'%s' % ('%s' % x)", "'%s' |!( ('%s' |!( x)))");
        check("2 * a % b", "2 * a % b");
        check("if a % 2", "if a |!( 2)");
        check("{'a': '%s' % x}", "{'a': '%s' |!( x)}");
        for broken in ["%", "a %", "% a", "a % )", ") % a", "a % (", "a % * b"] {
            check(broken, broken);
        }
        assert_eq!(without_percent("{%- if a % b -%}"), format!("{{%- if a |{PERCENT}( b) -%}}"));
    }
}
