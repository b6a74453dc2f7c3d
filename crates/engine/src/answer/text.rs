//! Bytes of tokens in, the text of an answer and the passages that it cites out.

/// Text of an answer as its bytes come: whole characters only, without blanks around it.
#[derive(Default)]
pub(crate) struct AnswerText {
    /// Bytes of a character that is not complete.
    rest: Vec<u8>,
    text: String,
    /// Bytes of `text` that were handed out.
    told: usize,
}

impl AnswerText {
    /// Takes the bytes of a token. Whether the first line is complete, if no more is wanted.
    pub(crate) fn push(&mut self, bytes: &[u8], one_line: bool) -> bool {
        self.rest.extend_from_slice(bytes);
        take_characters(&mut self.rest, &mut self.text);
        if self.told == 0 {
            self.text.drain(..self.text.len() - self.text.trim_start().len());
        }
        match self.text.find('\n').filter(|_| one_line) {
            Some(end) => {
                self.text.truncate(end);
                true
            }
            None => false,
        }
    }

    /// Returns what can be handed out now: blanks wait for what comes after them.
    pub(crate) fn untold(&mut self) -> &str {
        let first = self.told;
        self.told = self.text.trim_end().len();
        &self.text[first..self.told]
    }

    /// Returns the text, without blanks at its end.
    pub(crate) fn finish(mut self) -> String {
        self.text.truncate(self.text.trim_end().len());
        self.text
    }
}

/// Moves complete characters from `bytes` to `text`; what can be none becomes U+FFFD.
fn take_characters(bytes: &mut Vec<u8>, text: &mut String) {
    let mut done = 0;
    while done < bytes.len() {
        let rest = &bytes[done..];
        let error = std::str::from_utf8(rest).err();
        let valid = error.map_or(rest.len(), |error| error.valid_up_to());
        text.push_str(&String::from_utf8_lossy(&rest[..valid]));
        done += valid;
        match error.map(|error| error.error_len()) {
            Some(Some(wrong)) => {
                text.push(char::REPLACEMENT_CHARACTER);
                done += wrong;
            }
            Some(None) | None => break,
        }
    }
    bytes.drain(..done);
}

/// The numbers in brackets, as in `[1]` or `[1, 2]`, each once.
pub(crate) fn cited(answer: &str) -> Vec<usize> {
    let mut found = Vec::new();
    for piece in answer.split('[').skip(1) {
        let Some((numbers, _)) = piece.split_once(']') else { continue };
        let numbers: Result<Vec<usize>, _> = numbers.split(',').map(|n| n.trim().parse()).collect();
        for number in numbers.unwrap_or_default() {
            if !found.contains(&number) {
                found.push(number);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_in_whole_characters_and_without_blanks_around_it() {
        let told = |tokens: &[&[u8]], one_line| {
            let (mut text, mut told, mut complete) = (AnswerText::default(), Vec::new(), false);
            for token in tokens {
                complete = text.push(token, one_line);
                told.push(text.untold().to_owned());
            }
            (told, text.finish(), complete)
        };
        let euro = "€".as_bytes();
        let tokens: [&[u8]; 6] = [b" \n", &euro[..1], &euro[1..], b"1 ", b"\xff\xe2", b"x\n"];
        let (pieces, answer, _) = told(&tokens, false);
        assert_eq!(pieces, ["", "", "€", "1", " \u{fffd}", "\u{fffd}x"]);
        assert_eq!(answer, pieces.concat());
        // A character that is cut off at the end is left out.
        assert_eq!(told(&[b"a", &euro[..2]], false).1, "a");
        let (pieces, answer, complete) = told(&[b"\na", b" b\nc"], true);
        assert_eq!((pieces.concat().as_str(), answer.as_str(), complete), ("a b", "a b", true));
    }

    #[test]
    fn numbers_in_brackets_are_cited() {
        assert_eq!(cited("As [2] says, and [1, 2][3]. [x] [ 4 ] [5"), [2, 1, 3, 4]);
        assert_eq!(cited("[-1] [99999999999999999999] none"), [0; 0]);
    }
}
