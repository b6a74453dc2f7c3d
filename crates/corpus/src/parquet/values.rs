//! Values of a column as text: arrays of Arrow come in, texts go out, one a row. A value that cannot be text
//! is an error of its row. Decodes no page.

use std::borrow::Cow;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Decimal128Type, Decimal256Type, DecimalType, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use hyperrag_core::DocumentField;

use crate::error::CorpusError;
use crate::limits::Limits;
use crate::parquet::sources::Kind;
use crate::place::Place;

/// Whole numbers below this one are exact as `f64`: each has no other whole number that rounds to it.
const EXACT_F64: f64 = 9_007_199_254_740_992.0;
/// Whole numbers below this one are exact as `f32`.
const EXACT_F32: f64 = 16_777_216.0;

/// Values of a column in a batch.
pub(crate) struct Values {
    field: DocumentField,
    kind: Kind,
    /// Structs around the column. A null in one of them is a null in the column.
    parents: Vec<ArrayRef>,
    array: ArrayRef,
}

impl Values {
    /// Takes the field of the names `below` from a column of a batch; `None` if it is not there.
    pub(crate) fn of(
        column: &ArrayRef,
        below: &[String],
        field: DocumentField,
        kind: Kind,
    ) -> Option<Self> {
        let (mut array, mut parents) = (ArrayRef::clone(column), Vec::new());
        for name in below {
            let child = ArrayRef::clone(array.as_struct_opt()?.column_by_name(name)?);
            parents.push(std::mem::replace(&mut array, child));
        }
        Some(Self { field, kind, parents, array })
    }

    /// Returns the text of the value at `index`, which stands at `place`; `None` if it is null.
    pub(crate) fn text(
        &self,
        index: usize,
        place: &Place,
        limits: &Limits,
    ) -> Result<Option<Cow<'_, str>>, CorpusError> {
        let arrays = self.parents.iter().chain([&self.array]);
        if arrays.into_iter().any(|array| array.is_null(index)) {
            return Ok(None);
        }
        let bytes = || bytes(&self.array, index);
        Ok(match self.kind {
            Kind::Text => Some(Cow::Borrowed(self.utf8(self.unpadded(bytes()), place)?)),
            Kind::Lines => Some(Cow::Owned(self.lines(index, place, limits)?)),
            Kind::Number => self.number(index, place)?.map(Cow::Owned),
            Kind::Integer128 => Some(Cow::Owned(self.integer(bytes(), place)?)),
            Kind::UuidOrText if bytes().iter().all(|byte| (b' '..=b'~').contains(byte)) => {
                Some(Cow::Borrowed(self.utf8(bytes(), place)?))
            }
            Kind::UuidOrText if is_short(bytes()) => {
                return Err(
                    self.other("16 bytes that the file does not call a number or text", place)
                );
            }
            Kind::Uuid | Kind::UuidOrText => Some(Cow::Owned(uuid(bytes()))),
        })
    }

    /// Leaves out the zeros that pad text to a fixed length.
    fn unpadded<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        match self.array.data_type() {
            DataType::FixedSizeBinary(_) => {
                let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
                bytes.get(..end).unwrap_or_default()
            }
            _ => bytes,
        }
    }

    fn utf8<'a>(&self, bytes: &'a [u8], place: &Place) -> Result<&'a str, CorpusError> {
        std::str::from_utf8(bytes).map_err(|error| CorpusError::ValueUtf8 {
            place: place.clone(),
            field: self.field,
            byte: error.valid_up_to() + 1,
        })
    }

    /// Joins the values of the list at `index`, but for nulls, by line ends.
    fn lines(&self, index: usize, place: &Place, limits: &Limits) -> Result<String, CorpusError> {
        let list = self.array.as_list::<i32>().value(index);
        let values = || (0..list.len()).filter(|at| list.is_valid(*at)).map(|at| bytes(&list, at));
        let length: u64 = values().map(|value| value.len() as u64 + 1).sum();
        let (bytes, max) = (length.saturating_sub(1), limits.document_bytes);
        if bytes > max {
            return Err(CorpusError::DocumentTooLong { place: place.clone(), bytes, max });
        }
        let mut text = String::new();
        for (at, value) in values().enumerate() {
            if at > 0 {
                text.push('\n');
            }
            text.push_str(self.utf8(value, place)?);
        }
        Ok(text)
    }

    /// Returns a number as digits; `None` if it is a title and stands for none. An id must be a whole number
    /// that no type has rounded.
    fn number(&self, index: usize, place: &Place) -> Result<Option<String>, CorpusError> {
        let array = &self.array;
        let (number, exact) = match array.data_type() {
            DataType::Float32 => {
                (f64::from(array.as_primitive::<Float32Type>().value(index)), EXACT_F32)
            }
            DataType::Float64 => (array.as_primitive::<Float64Type>().value(index), EXACT_F64),
            _ => {
                let digits = digits(array, index);
                return match digits.split_once('.') {
                    None => Ok(Some(digits)),
                    Some((whole, rest)) if rest.bytes().all(|digit| digit == b'0') => {
                        Ok(Some(whole.to_owned()))
                    }
                    Some(_) if self.field == DocumentField::Id => Err(self.fraction(place)),
                    Some(_) => Ok(Some(digits)),
                };
            }
        };
        let id = self.field == DocumentField::Id;
        match number {
            // Adding zero makes -0 a zero without a sign.
            number if number.fract() == 0.0 && number.abs() < exact => {
                Ok(Some((number + 0.0).to_string()))
            }
            number if number.is_nan() && !id => Ok(None),
            number if !id => Ok(Some(number.to_string())),
            number if number.fract() == 0.0 => {
                Err(CorpusError::RoundedId { place: place.clone(), id: number })
            }
            number if number.is_finite() => Err(self.fraction(place)),
            _ => Err(self.other("not a finite number", place)),
        }
    }

    fn fraction(&self, place: &Place) -> CorpusError {
        self.other("a number with a fraction", place)
    }

    /// Returns the error of a value of another kind.
    fn other(&self, found: &'static str, place: &Place) -> CorpusError {
        CorpusError::Value { place: place.clone(), field: self.field, found }
    }

    /// Returns the digits of a whole number of 128 bits. Whether the highest is a sign is not told.
    fn integer(&self, bytes: &[u8], place: &Place) -> Result<String, CorpusError> {
        let number = bytes.try_into().ok().map(i128::from_le_bytes);
        match number.filter(|number| *number >= 0) {
            Some(number) => Ok(number.to_string()),
            None => Err(CorpusError::SignOfInteger { place: place.clone(), field: self.field }),
        }
    }
}

/// Returns the bytes of a value; none for a type that has no bytes.
fn bytes(array: &ArrayRef, index: usize) -> &[u8] {
    match array.data_type() {
        DataType::Utf8 => array.as_string::<i32>().value(index).as_bytes(),
        DataType::Binary => array.as_binary::<i32>().value(index),
        DataType::FixedSizeBinary(_) => array.as_fixed_size_binary().value(index),
        DataType::Utf8View => array.as_string_view().value(index).as_bytes(),
        DataType::BinaryView => array.as_binary_view().value(index),
        _ => &[],
    }
}

/// Returns the digits of an integer or a decimal.
fn digits(array: &ArrayRef, index: usize) -> String {
    match array.data_type() {
        DataType::Int8 => array.as_primitive::<Int8Type>().value(index).to_string(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(index).to_string(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(index).to_string(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(index).to_string(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(index).to_string(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(index).to_string(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(index).to_string(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(index).to_string(),
        DataType::Decimal128(precision, scale) => {
            let value = array.as_primitive::<Decimal128Type>().value(index);
            Decimal128Type::format_decimal(value, *precision, *scale)
        }
        DataType::Decimal256(precision, scale) => {
            let value = array.as_primitive::<Decimal256Type>().value(index);
            Decimal256Type::format_decimal(value, *precision, *scale)
        }
        _ => String::new(),
    }
}

/// Whether 16 bytes look like an integer, the lowest byte first, or like text padded with zeros: the second
/// half has zeros alone, or the bits of a sign. A UUID has its variant there.
fn is_short(bytes: &[u8]) -> bool {
    let half = bytes.get(8..).unwrap_or_default();
    half.iter().all(|byte| *byte == 0) || half.iter().all(|byte| *byte == 0xff)
}

/// Spells a UUID: 8, 4, 4, 4 and 12 hexadecimal digits.
fn uuid(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{
        BinaryArray, BinaryViewArray, Decimal128Array, Decimal256Array, FixedSizeBinaryArray,
        Float32Array, Float64Array, Int64Array, LargeBinaryArray,
    };
    use parquet::file::properties::WriterProperties;

    use super::*;
    use crate::columns::Columns;
    use crate::testing::{Folder, parquet_bytes, parquet_typed, parquet_with, strings};

    fn read(bytes: &[u8]) -> Vec<String> {
        let folder = Folder::new();
        folder.write("c.parquet", bytes);
        match folder.corpus(&["c.parquet"], Columns::default()) {
            Ok(corpus) => folder.read(&corpus),
            Err(error) => vec![error],
        }
    }

    /// Reads two documents with these ids, and `more` columns.
    fn ids(id: ArrayRef) -> Vec<String> {
        read(&parquet_bytes(vec![("id", id), ("text", strings(&[Some("a"), Some("b")]))], 2, true))
    }

    #[test]
    fn bytes_without_annotation_are_text() {
        let bytes: [ArrayRef; 3] = [
            Arc::new(BinaryArray::from(vec![b"\xc3\xbc1".as_slice(), b"2"])),
            Arc::new(LargeBinaryArray::from(vec![b"\xc3\xbc1".as_slice(), b"2"])),
            Arc::new(BinaryViewArray::from(vec![b"\xc3\xbc1".as_slice(), b"2"])),
        ];
        for bytes in bytes {
            let names = ["id", "title", "text"];
            let columns = names.map(|name| (name, Arc::clone(&bytes))).to_vec();
            assert_eq!(read(&parquet_bytes(columns, 1, false)), ["ü1/ü1/ü1", "2/2/2"]);
        }
        let fixed = FixedSizeBinaryArray::try_from_iter([b"abc", b"def"].into_iter()).unwrap();
        assert_eq!(ids(Arc::new(fixed)), ["abc//a", "def//b"]);
        let padded = FixedSizeBinaryArray::try_from_iter([b"abc\0\0", b"de\0f\0"].into_iter());
        let read = ids(Arc::new(padded.unwrap()));
        assert!(read[0] == "abc//a" && read[1].contains("a control character"), "{read:?}");
    }

    #[test]
    fn bytes_that_are_no_text_are_an_error_of_their_row() {
        let text = BinaryArray::from(vec![b"a".as_slice(), b"b\xff", b"c"]);
        let id = strings(&[Some("1"), Some("2"), Some("3")]);
        let bytes = parquet_bytes(vec![("id", id), ("text", Arc::new(text))], 9, false);
        let folder = Folder::new();
        let path = folder.write("c.parquet", &bytes);
        let path: Arc<std::path::Path> = std::path::Path::new(&path).into();
        let file = crate::ranges::RangeFile::here(&path).unwrap();
        let rows = crate::parquet::ParquetRows::open(file, &Columns::default(), &Limits::default());
        let mut rows = rows.unwrap();
        assert_eq!(rows.next_row().unwrap().unwrap().document.text, "a");
        let error = rows.next_row().unwrap_err().to_string();
        let expected = "row 2: the text is not valid UTF-8 at byte 2; write it as UTF-8";
        assert!(error.ends_with(expected), "{error}");
        assert_eq!(rows.next_row().unwrap().unwrap().place.row, 3);
        assert_eq!(rows.next_row().unwrap(), None);
    }

    const UUID: [u8; 16] = [
        0x12, 0x3e, 0x45, 0x67, 0xe8, 0x9b, 0x12, 0xd3, 0xa4, 0x56, 0x42, 0x66, 0x14, 0x17, 0x40,
        0x0f,
    ];

    #[test]
    fn uuids_have_their_usual_spelling() {
        let fixed = |values: [&[u8]; 2]| {
            Arc::new(FixedSizeBinaryArray::try_from_iter(values.into_iter()).unwrap()) as ArrayRef
        };
        let spelt = "123e4567-e89b-12d3-a456-42661417400f//a";
        assert_eq!(ids(fixed([&UUID, b"0123456789abcdef"])), [spelt, "0123456789abcdef//b"]);
        let schema = "message m { required fixed_len_byte_array(16) id (UUID); \
                      required binary text (UTF8); }";
        let columns = vec![
            ("id", fixed([&UUID, b"0123456789abcdef"])),
            ("text", strings(&[Some("a"), Some("b")])),
        ];
        let ascii = "30313233-3435-3637-3839-616263646566//b";
        assert_eq!(read(&parquet_typed(schema, columns)), [spelt, ascii]);
    }

    #[test]
    fn whole_numbers_are_digits_in_whatever_type() {
        let decimal = |values: Vec<i128>, precision, scale| {
            let values = Decimal128Array::from(values).with_precision_and_scale(precision, scale);
            Arc::new(values.unwrap()) as ArrayRef
        };
        assert_eq!(ids(decimal(vec![17, -5], 4, 0)), ["17//a", "-5//b"]);
        assert_eq!(ids(decimal(vec![17, 5], 18, 0)), ["17//a", "5//b"]);
        let most = 10_i128.pow(38) - 1;
        let nines = "9".repeat(38);
        assert_eq!(
            ids(decimal(vec![most, -most], 38, 0)),
            [format!("{nines}//a"), format!("-{nines}//b")]
        );
        let fraction = "DIR/c.parquet row 2: the id is a number with a fraction, it must be a \
                        string or a whole number";
        assert_eq!(ids(decimal(vec![17_000, 500], 18, 3)), ["17//a", fraction]);
        let wide = Decimal256Array::from_iter_values([7.into(), 8.into()]);
        let wide = wide.with_precision_and_scale(76, 0).unwrap();
        assert_eq!(ids(Arc::new(wide)), ["7//a", "8//b"]);
        let floats = Float64Array::from(vec![9_007_199_254_740_991.0, -0.0]);
        assert_eq!(ids(Arc::new(floats)), ["9007199254740991//a", "0//b"]);
        assert_eq!(ids(Arc::new(Float64Array::from(vec![1.0, 1.5]))), ["1//a", fraction]);
        let error = ids(Arc::new(Float64Array::from(vec![9_007_199_254_740_992.0, 1.0])));
        assert!(error[0].contains("row 1: the id 9007199254740992 is a floating"), "{error:?}");
        let error = ids(Arc::new(Float32Array::from(vec![16_777_215.0, 16_777_216.0])));
        assert!(error[1].contains("may have been rounded; write the ids as"), "{error:?}");
        let error = ids(Arc::new(Float64Array::from(vec![f64::NAN, 1.0])));
        assert!(error[0].contains("the id is not a finite number"), "{error:?}");
    }

    #[test]
    fn integers_of_128_bits_by_polars_are_read() {
        let ids = |maker: &str, numbers: [i128; 2]| {
            let bytes = numbers.map(i128::to_le_bytes);
            let id = FixedSizeBinaryArray::try_from_iter(bytes.iter()).unwrap();
            let columns: Vec<(&str, ArrayRef)> =
                vec![("id", Arc::new(id)), ("text", strings(&[Some("a"), Some("b")]))];
            let maker = WriterProperties::builder().set_created_by(maker.to_owned());
            read(&parquet_with(columns, maker.build()))
        };
        let polars = "Polars (python) version 2.1.0";
        assert_eq!(ids(polars, [7, i128::MAX]), ["7//a", &format!("{}//b", i128::MAX)]);
        let error = ids(polars, [7, -1]);
        assert!(error[1].contains("row 2: the id is an integer of 128 bits that is"), "{error:?}");
        for numbers in [[7, 1], [-7, 1]] {
            let error = ids("other", numbers);
            let expected = "row 1: the id is 16 bytes that the file does not call";
            assert!(error[0].contains(expected), "{error:?}");
        }
    }

    #[test]
    fn a_title_may_be_a_number() {
        let title = |title: ArrayRef| {
            let two = || strings(&[Some("1"), Some("2")]);
            read(&parquet_bytes(vec![("id", two()), ("title", title), ("text", two())], 2, true))
        };
        assert_eq!(title(Arc::new(Int64Array::from(vec![1984, 0]))), ["1/1984/1", "2/0/2"]);
        let floats = Float64Array::from(vec![f64::NAN, 2.5]);
        assert_eq!(title(Arc::new(floats)), ["1//1", "2/2.5/2"]);
    }
}
