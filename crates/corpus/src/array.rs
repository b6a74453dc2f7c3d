//! Reads the elements of one JSON array: an open text and a length limit come in, the text of one element
//! after the other goes out. Only an element is held at a time. Knows nothing of what an element means.

use std::io::BufRead;

use crate::error::CorpusError;
use crate::place::Place;
use crate::source::Text;

/// Reader of the elements of a JSON array.
pub(crate) struct ArrayReader {
    text: Text,
    bytes_max: usize,
    /// Number of the element, counted from 1.
    number: u64,
    element: Vec<u8>,
    bytes: u64,
    scan: Scan,
    state: State,
}

/// Position in the array.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before the bracket that opens it.
    Start,
    /// After the opening bracket or a comma, where an element begins; after the bracket it may be the end.
    Before { first: bool },
    /// Inside an element of which nothing is kept, since it is too long.
    PassingOver,
    /// After an element.
    After,
    /// After the bracket that closes it.
    End,
}

/// Position in an element.
#[derive(Clone, Copy, Default)]
struct Scan {
    /// Number of brackets and braces that are open.
    depth: u64,
    in_string: bool,
    escaped: bool,
}

impl Scan {
    /// Goes on by a byte. Returns whether the element ends before it, or with it.
    fn step(&mut self, byte: u8) -> Step {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return if self.in_string || self.depth > 0 { Step::Inside } else { Step::Last };
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth > 0 => {
                self.depth -= 1;
                return if self.depth > 0 { Step::Inside } else { Step::Last };
            }
            b',' | b']' | b'}' if self.depth == 0 => return Step::Behind,
            _ => {}
        }
        Step::Inside
    }
}

/// Relation of a byte to the element.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Inside,
    Last,
    Behind,
}

impl ArrayReader {
    pub(crate) fn new(mut text: Text, bytes_max: usize) -> Result<Self, CorpusError> {
        let place = text.row(1);
        let bytes = text.skip_mark().map_err(|error| text.unreadable(error, place))?;
        Ok(Self {
            text,
            bytes_max,
            number: 0,
            element: Vec::new(),
            bytes,
            scan: Scan::default(),
            state: State::Start,
        })
    }

    /// Goes to the next element. `false` at the end of the array.
    pub(crate) fn advance(&mut self) -> Result<bool, CorpusError> {
        if self.state == State::PassingOver {
            self.read_element(false)?;
        }
        self.element.clear();
        loop {
            let Some(byte) = self.next_character()? else {
                return match self.state {
                    State::End => Ok(false),
                    _ => Err(self.fault("the file ends before the array does")),
                };
            };
            self.state = match (self.state, byte) {
                (State::Start, b'[') => self.consumed(State::Before { first: true }),
                (State::Before { first: true } | State::After, b']') => self.consumed(State::End),
                (State::After, b',') => self.consumed(State::Before { first: false }),
                (State::Before { .. }, byte) if byte != b',' && byte != b']' && byte != b'}' => {
                    self.number += 1;
                    self.read_element(true)?;
                    return Ok(true);
                }
                (State::End, _) => return Err(self.fault("text follows after the array")),
                _ => return Err(self.fault("a comma or a bracket is missing or one too many")),
            };
        }
    }

    /// Returns the text of the element.
    pub(crate) fn text(&self) -> Result<&str, CorpusError> {
        std::str::from_utf8(&self.element).map_err(|error| CorpusError::NotUtf8 {
            place: self.place(),
            byte: error.valid_up_to() + 1,
        })
    }

    /// Returns the place of the element.
    pub(crate) fn place(&self) -> Place {
        self.text.row(self.number)
    }

    /// Returns the bytes of the file read since the last call.
    pub(crate) fn take_bytes(&mut self) -> u64 {
        self.text.stored_bytes(std::mem::take(&mut self.bytes))
    }

    fn fault(&self, what: &'static str) -> CorpusError {
        CorpusError::Array { place: self.text.row(self.number.max(1)), what }
    }

    fn consumed(&mut self, state: State) -> State {
        self.text.consume(1);
        self.bytes += 1;
        state
    }

    /// Passes over blanks and returns the next byte without consuming it; `None` at the end.
    fn next_character(&mut self) -> Result<Option<u8>, CorpusError> {
        loop {
            let buffer = match self.text.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) => {
                    return Err(self.text.unreadable(error, self.text.row(self.number + 1)));
                }
            };
            let blanks = buffer.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            let (next, end) = (buffer.get(blanks).copied(), buffer.is_empty());
            self.text.consume(blanks);
            self.bytes += blanks as u64;
            if next.is_some() || end {
                return Ok(next);
            }
        }
    }

    /// Reads to the end of an element, which is kept or passed over.
    fn read_element(&mut self, keep: bool) -> Result<(), CorpusError> {
        if keep {
            self.scan = Scan::default();
        }
        loop {
            let buffer = match self.text.fill_buf() {
                Ok(buffer) => buffer,
                Err(error) => return Err(self.text.unreadable(error, self.place())),
            };
            if buffer.is_empty() {
                self.state = State::After;
                return Err(self.fault("the file ends before the array does"));
            }
            let scan = &mut self.scan;
            let mut steps = buffer.iter().map(|byte| scan.step(*byte)).enumerate();
            let end = steps.find(|(_, step)| *step != Step::Inside);
            let taken = match end {
                None => buffer.len(),
                Some((at, step)) => at + usize::from(step == Step::Last),
            };
            let fits = self.element.len() + taken <= self.bytes_max;
            if keep && fits {
                self.element.extend_from_slice(&buffer[..taken]);
            }
            self.text.consume(taken);
            self.bytes += taken as u64;
            self.state = if end.is_some() { State::After } else { State::PassingOver };
            if keep && !fits {
                let bytes_max = self.bytes_max;
                return Err(CorpusError::LineTooLong { place: self.place(), bytes_max });
            }
            if end.is_some() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::limits::Limits;
    use crate::source::Source;
    use crate::testing::Folder;

    /// Returns the elements with `|` between, and the faults.
    fn read(text: &str, bytes_max: usize) -> String {
        let folder = Folder::new();
        let path = folder.write("c.json", text.as_bytes());
        let source = Source::of_file(Path::new(&path), 0);
        let mut array =
            ArrayReader::new(source.open(&Limits::default()).unwrap(), bytes_max).unwrap();
        let (mut out, mut bytes) = (Vec::new(), 0);
        loop {
            match array.advance() {
                Ok(false) => break,
                Ok(true) => out.push(format!("{}:{}", array.number, array.text().unwrap())),
                Err(error) => {
                    out.push(error.to_string().replace(folder.path(), "DIR"));
                    if !error.is_of_row() {
                        return out.join("|");
                    }
                }
            }
            bytes += array.take_bytes();
        }
        assert_eq!(bytes + array.take_bytes(), text.len() as u64);
        out.join("|")
    }

    #[test]
    fn elements_are_told_apart() {
        for (text, expected) in [
            ("[]", ""),
            ("\u{feff} [ ] \n", ""),
            (r#"[{"a":"]}\"["} , {"b":[1,{"c":2}]}]"#, r#"1:{"a":"]}\"["}|2:{"b":[1,{"c":2}]}"#),
            ("[\n {\"a\":\n1}\n,\n{}\n]\n", "1:{\"a\":\n1}|2:{}"),
            (r#"[1, "a,]", null,[[]]]"#, r#"1:1|2:"a,]"|3:null|4:[[]]"#),
        ] {
            assert_eq!(read(text, 100), expected, "{text}");
        }
    }

    #[test]
    fn faults_of_the_array_are_named() {
        for (text, expected) in [
            ("[", "DIR/c.json row 1: not a whole JSON array: the file ends before the array does"),
            ("[1", "row 1: not a whole JSON array: the file ends before"),
            ("[{\"a\":\"]", "row 1: not a whole JSON array: the file ends before"),
            ("[1,2", "row 2: not a whole JSON array: the file ends before"),
            ("[1,]", "row 1: not a whole JSON array: a comma or a bracket"),
            ("[,1]", "a comma or a bracket"),
            ("[{} {}]", "a comma or a bracket"),
            ("[{}}", "a comma or a bracket"),
            ("[1] 2", "text follows after the array"),
            ("[1][2]", "text follows after the array"),
        ] {
            let read = read(text, 100);
            assert!(read.contains(expected), "{text}: {read}");
        }
    }

    #[test]
    fn a_long_element_is_passed_over() {
        let long = format!("[\"{}\",2]", "x".repeat(100_000));
        let refused = "DIR/c.json row 1: the line is longer than 9 bytes, the limit";
        assert_eq!(read(&long, 9), format!("{refused}|2:2"));
        assert_eq!(read("[\"12345678\",2]", 9), format!("{refused}|2:2"));
        assert_eq!(read("[\"1234567\",2]", 9), "1:\"1234567\"|2:2");
    }
}
