//! Finds the columns of a Parquet file: its schema, and the names given, come in; leaves, with the way to
//! read each as text, go out. Reads no value.

use std::path::Path;
use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use hyperrag_core::DocumentField;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::basic::LogicalType;
use parquet::file::metadata::ParquetMetaData;

use crate::columns::{Columns, quoted};
use crate::error::CorpusError;
use crate::taken::ColumnsTaken;

/// Way to read the values of a column as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bytes of UTF-8.
    Text,
    /// Lists of such bytes. The values of a list are joined by line ends.
    Lines,
    /// Numbers of any type of Arrow.
    Number,
    /// The 16 bytes of a whole number, the lowest first. Polars writes its 128-bit integers so, with nothing
    /// in the schema to tell.
    Integer128,
    /// The 16 bytes of a UUID.
    Uuid,
    /// 16 bytes that the schema does not explain. If all are printable ASCII they are text: the variant of a
    /// UUID (RFC 9562) sets the highest bit of its ninth byte. Else they are a UUID, unless the second half is
    /// as good as empty.
    UuidOrText,
}

/// Column of a file that a field of the documents is read from.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Name: that of a column, with those of the fields below it, between dots.
    name: String,
    /// Position among the columns of the file, and then among the fields of each struct.
    path: Vec<usize>,
    /// Names of the fields below the column.
    pub(crate) below: Vec<String>,
    /// Leaves of the file's schema.
    pub(crate) leaves: Vec<usize>,
    /// Way to read the values; `None` if the column has no value at all.
    pub(crate) kind: Option<Kind>,
}

impl Source {
    /// Position of the column in the file.
    pub(crate) fn root(&self) -> usize {
        self.path.first().copied().unwrap_or_default()
    }
}

/// Finds the columns of id, title and text in a file of `rows` rows. Where the file has no row, whatever
/// column has a name that fits will do.
pub(crate) fn find(
    file: &Path,
    metadata: &ArrowReaderMetadata,
    rows: u64,
    columns: &Columns,
) -> Result<[Option<Source>; 3], CorpusError> {
    let id = one(file, metadata, rows, columns, DocumentField::Id)?;
    let title = one(file, metadata, rows, columns, DocumentField::Title)?;
    let text = one(file, metadata, rows, columns, DocumentField::Text)?;
    Ok([id, title, text])
}

/// Tells the columns found and those left out.
pub(crate) fn taken(schema: &Schema, found: &[Option<Source>; 3]) -> ColumnsTaken {
    let [id, title, text] = found.each_ref().map(|source| Some(source.as_ref()?.name.clone()));
    let used = |at: usize| found.iter().flatten().any(|source| source.root() == at);
    let others = schema.fields().iter().enumerate().filter(|(at, _)| !used(*at));
    let left_out = others.map(|(_, field)| field.name().clone()).collect();
    ColumnsTaken::of(Columns { id, title, text, ..Columns::default() }, left_out)
}

fn one(
    file: &Path,
    metadata: &ArrowReaderMetadata,
    rows: u64,
    columns: &Columns,
    field: DocumentField,
) -> Result<Option<Source>, CorpusError> {
    let fields = metadata.schema().fields();
    let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    let found = columns.find(field, &names).map(|at| vec![at]);
    let dotted = || columns.given(field).and_then(|name| path(fields, name));
    let Some(path) = found.or_else(dotted) else {
        if field == DocumentField::Title && columns.title.is_none() {
            return Ok(None);
        }
        let mut names = Vec::new();
        spell(fields, "", &mut names);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        return Err(columns.missing(field, &names, file.display()));
    };
    let (found, names) = field_at(fields, &path);
    let leaves = leaves(metadata.metadata(), path.first().copied().unwrap_or_default(), &names);
    let kind = match has_no_value(metadata.metadata(), rows, found.data_type(), &leaves) {
        true if field != DocumentField::Id || rows == 0 => None,
        _ => match kind_of(file, metadata.metadata(), columns, field, found, &names, &leaves) {
            Ok(kind) => Some(kind),
            Err(_)
                if field == DocumentField::Title && !columns.is_surely_title(&names.join(".")) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error),
        },
    };
    let below = names.iter().skip(1).map(|name| (*name).to_owned()).collect();
    Ok(Some(Source { name: names.join("."), path, below, leaves, kind }))
}

/// Finds the field with a dotted name, e.g. `doc.text`: the field `text` of the struct `doc`. Names may
/// themselves have dots. Case only decides between names that differ in nothing else.
fn path(fields: &Fields, name: &str) -> Option<Vec<usize>> {
    fn search(
        fields: &Fields,
        name: &str,
        same: impl Fn(&str, &str) -> bool + Copy,
    ) -> Option<Vec<usize>> {
        if let Some(at) = fields.iter().position(|field| same(field.name(), name)) {
            return Some(vec![at]);
        }
        fields.iter().enumerate().find_map(|(at, field)| {
            let DataType::Struct(below) = field.data_type() else { return None };
            let (first, rest) = name.split_at_checked(field.name().len())?;
            let rest = rest.strip_prefix('.').filter(|_| same(field.name(), first))?;
            Some([vec![at], search(below, rest, same)?].concat())
        })
    }
    search(fields, name, |a, b| a == b)
        .or_else(|| search(fields, name, |a, b| a.eq_ignore_ascii_case(b)))
}

/// Adds the names of all fields, those of structs with dots.
fn spell(fields: &Fields, before: &str, names: &mut Vec<String>) {
    for field in fields {
        let name = format!("{before}{}", field.name());
        match field.data_type() {
            DataType::Struct(below) => spell(below, &format!("{name}."), names),
            _ => names.push(name),
        }
    }
}

/// Returns the field at a path and the names on the way.
fn field_at<'a>(fields: &'a Fields, path: &[usize]) -> (&'a Field, Vec<&'a str>) {
    let (mut fields, mut names) = (fields, Vec::new());
    let mut found = None;
    for at in path {
        let field = &fields[*at];
        names.push(field.name().as_str());
        found = Some(field);
        if let DataType::Struct(below) = field.data_type() {
            fields = below;
        }
    }
    (found.expect("a path has a step"), names)
}

/// Returns the leaves of the schema below the field of these names in the column `root`.
fn leaves(metadata: &ParquetMetaData, root: usize, names: &[&str]) -> Vec<usize> {
    let schema = metadata.file_metadata().schema_descr();
    let inside = |leaf: &usize| {
        let column = schema.column(*leaf);
        let parts = column.path().parts();
        schema.get_column_root_idx(*leaf) == root
            && parts.iter().zip(names).all(|(part, name)| part == name)
            && parts.len() >= names.len()
    };
    (0..schema.num_columns()).filter(inside).collect()
}

/// Whether all values of a column are null: its type says so, or the statistics of all its pages.
fn has_no_value(metadata: &ParquetMetaData, rows: u64, kind: &DataType, leaves: &[usize]) -> bool {
    let nulls = |leaf: usize| {
        metadata.row_groups().iter().all(|group| {
            let nulls = group.column(leaf).statistics().and_then(|kept| kept.null_count_opt());
            nulls.is_some_and(|nulls| i64::try_from(nulls) == Ok(group.num_rows()))
        })
    };
    rows == 0 || kind.is_null() || matches!(leaves, [leaf] if !kind.is_nested() && nulls(*leaf))
}

/// Returns the way to read a column, or an error that says why there is none.
fn kind_of(
    file: &Path,
    metadata: &ParquetMetaData,
    columns: &Columns,
    field: DocumentField,
    found: &Field,
    names: &[&str],
    leaves: &[usize],
) -> Result<Kind, CorpusError> {
    let (id, text) = (field == DocumentField::Id, field == DocumentField::Text);
    let schema = metadata.file_metadata().schema_descr();
    let uuid = || {
        leaves
            .iter()
            .any(|leaf| schema.column(*leaf).logical_type_ref() == Some(&LogicalType::Uuid))
    };
    let maker = metadata.file_metadata().created_by().unwrap_or_default();
    let name = names.join(".");
    let kind = match found.data_type() {
        DataType::Utf8 | DataType::Binary => Some(Kind::Text),
        DataType::FixedSizeBinary(16) if uuid() => id.then_some(Kind::Uuid),
        DataType::FixedSizeBinary(16) if maker.starts_with("Polars") => {
            (!text).then_some(Kind::Integer128)
        }
        DataType::FixedSizeBinary(16) if id => Some(Kind::UuidOrText),
        DataType::FixedSizeBinary(_) => Some(Kind::Text),
        kind if is_number(kind) => (!text).then_some(Kind::Number),
        DataType::List(item) if !id && is_bytes(item) => match columns.given(field) {
            Some(_) => Some(Kind::Lines),
            None => {
                let path = file.to_path_buf();
                return Err(CorpusError::ListColumn { path, field, name });
            }
        },
        _ => None,
    };
    kind.ok_or_else(|| CorpusError::ColumnType {
        path: file.to_path_buf(),
        field,
        name: name.clone(),
        found: described(&name, found.data_type()),
    })
}

fn is_bytes(item: &FieldRef) -> bool {
    matches!(item.data_type(), DataType::Utf8 | DataType::Binary)
}

fn is_number(kind: &DataType) -> bool {
    match kind {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => *scale >= 0,
        DataType::Float32 | DataType::Float64 => true,
        kind => kind.is_integer(),
    }
}

/// Describes the type of a column that cannot be used.
fn described(name: &str, kind: &DataType) -> String {
    match kind {
        DataType::Struct(below) => {
            let mut names = Vec::new();
            spell(below, &format!("{name}."), &mut names);
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            format!("Struct with {}", quoted(&names, names.len()))
        }
        DataType::List(_) => "List".to_owned(),
        DataType::Map(..) => "Map".to_owned(),
        kind => kind.to_string(),
    }
}

/// Returns the schema with which a file is read: lists of strings as views, so that many values of a list may
/// share the bytes of a page. `None` if no column is a list.
pub(crate) fn with_views(schema: &SchemaRef, found: &[Option<Source>; 3]) -> Option<SchemaRef> {
    let lists = found.iter().flatten().filter(|source| source.kind == Some(Kind::Lines));
    let mut viewed = None;
    for list in lists {
        let fields = viewed.as_ref().unwrap_or(schema).fields();
        let fields = fields_with_view(fields, &list.path);
        viewed = Some(Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone())));
    }
    viewed
}

fn fields_with_view(fields: &Fields, path: &[usize]) -> Fields {
    let Some((at, below)) = path.split_first() else { return fields.clone() };
    let change = |field: &FieldRef| {
        let kind = match field.data_type() {
            DataType::Struct(fields) => DataType::Struct(fields_with_view(fields, below)),
            DataType::List(item) => {
                let view = match item.data_type() {
                    DataType::Utf8 => DataType::Utf8View,
                    DataType::Binary => DataType::BinaryView,
                    kind => kind.clone(),
                };
                DataType::List(Arc::new(item.as_ref().clone().with_data_type(view)))
            }
            kind => kind.clone(),
        };
        Arc::new(field.as_ref().clone().with_data_type(kind))
    };
    let fields = fields.iter().enumerate();
    fields
        .map(|(other, field)| if other == *at { change(field) } else { Arc::clone(field) })
        .collect()
}

#[cfg(test)]
mod tests {
    use arrow_array::builder::{ListBuilder, StringBuilder};
    use arrow_array::types::Int32Type;
    use arrow_array::{ArrayRef, BooleanArray, Int32Array, ListArray, NullArray, StructArray};
    use arrow_schema::Field;
    use parquet::file::properties::WriterProperties;

    use super::*;
    use crate::testing::{Folder, parquet_bytes, parquet_with, strings};

    fn read(columns: Vec<(&str, ArrayRef)>, named: [Option<&str>; 3]) -> Vec<String> {
        read_bytes(&parquet_bytes(columns, 2, true), named)
    }

    fn read_bytes(bytes: &[u8], named: [Option<&str>; 3]) -> Vec<String> {
        let folder = Folder::new();
        folder.write("c.parquet", bytes);
        let [id, title, text] = named.map(|name| name.map(str::to_owned));
        match folder.corpus(&["c.parquet"], Columns { id, title, text, ..Columns::default() }) {
            Ok(corpus) => folder.read(&corpus),
            Err(error) => vec![error],
        }
    }

    const NONE: [Option<&str>; 3] = [None; 3];

    fn pair(a: &str, b: &str) -> ArrayRef {
        strings(&[Some(a), Some(b)])
    }

    fn no_value(rows: usize) -> ArrayRef {
        Arc::new(NullArray::new(rows))
    }

    fn structure(fields: Vec<(&str, ArrayRef)>, valid: Option<[bool; 2]>) -> ArrayRef {
        let (names, arrays): (Vec<_>, Vec<_>) = fields.into_iter().unzip();
        let fields = names.iter().zip(&arrays);
        let fields: Fields = fields
            .map(|(name, array)| Field::new(*name, array.data_type().clone(), true))
            .collect();
        let valid = valid.map(|valid| valid.to_vec().into());
        Arc::new(StructArray::new(fields, arrays, valid))
    }

    fn lists(values: &[Option<&[Option<&str>]>]) -> ArrayRef {
        let mut lists = ListBuilder::new(StringBuilder::new());
        for list in values {
            list.iter().for_each(|list| {
                list.iter().for_each(|value| lists.values().append_option(*value))
            });
            lists.append(list.is_some());
        }
        Arc::new(lists.finish())
    }

    #[test]
    fn a_column_without_a_value_is_no_title_and_no_text() {
        let columns =
            vec![("id", pair("1", "2")), ("title", no_value(2)), ("text", pair("a", "b"))];
        assert_eq!(read(columns.clone(), NONE), ["1//a", "2//b"]);
        assert_eq!(read(columns.clone(), [None, Some("title"), None]), ["1//a", "2//b"]);
        let columns = vec![("id", pair("1", "2")), ("text", no_value(2))];
        assert_eq!(read(columns, NONE), ["1//", "2//"]);
        // DuckDB and others give an integer to what has no type.
        let nulls: ArrayRef = Arc::new(Int32Array::from(vec![None, None]));
        let columns = vec![("id", pair("1", "2")), ("title", Arc::clone(&nulls)), ("text", nulls)];
        assert_eq!(read(columns, NONE), ["1//", "2//"]);
        let error = read(vec![("id", no_value(2)), ("text", pair("a", "b"))], NONE);
        assert_eq!(
            error,
            [
                "DIR/c.parquet: column \"id\" has type Null, the id must be a string or a whole number"
            ]
        );
    }

    #[test]
    fn a_column_that_may_have_titles_counts_if_it_can() {
        let truths = || Arc::new(BooleanArray::from(vec![true, false])) as ArrayRef;
        let columns =
            |title| vec![("id", pair("1", "2")), (title, truths()), ("text", pair("a", "b"))];
        assert_eq!(read(columns("name"), NONE), ["1//a", "2//b"]);
        for (name, named) in [("title", None), ("name", Some("name"))] {
            let error = read(columns(name), [None, named, None]).concat();
            assert!(error.contains("has type Boolean, the title must be a string"), "{error}");
        }
    }

    #[test]
    fn a_file_without_rows_has_columns_of_any_type() {
        let empty = || Arc::new(BooleanArray::from(Vec::<bool>::new())) as ArrayRef;
        let columns = vec![("id", no_value(0)), ("title", empty()), ("text", empty())];
        assert_eq!(read(columns, NONE), [""; 0]);
        let columns = vec![("id", pair("1", "2")), ("text", pair("a", "b"))];
        let folder = Folder::new();
        let empty = vec![("id", no_value(0)), ("text", no_value(0))];
        folder.write("a.parquet", &parquet_bytes(empty, 1, true));
        folder.write("b.parquet", &parquet_bytes(columns, 1, true));
        let corpus = folder.corpus(&[""], Columns::default()).unwrap();
        assert_eq!(folder.read(&corpus), ["1//a", "2//b"]);
    }

    #[test]
    fn a_field_of_a_struct_is_named_with_a_dot() {
        let parts =
            || vec![("text", pair("a", "b")), ("x", pair("x", "y")), ("Name", pair("A", "B"))];
        let columns = || vec![("id", pair("1", "2")), ("doc", structure(parts(), None))];
        let named = |title, text| [None, title, Some(text)];
        assert_eq!(read(columns(), named(None, "doc.text")), ["1//a", "2//b"]);
        assert_eq!(read(columns(), named(Some("DOC.name"), "doc.text")), ["1/A/a", "2/B/b"]);
        let error = "DIR/c.parquet: no text column: looked for \"doc.txt\", found \"id\", \
                     \"doc.text\", \"doc.x\", \"doc.Name\"";
        assert_eq!(read(columns(), named(None, "doc.txt")), [error]);
        let error = "DIR/c.parquet: column \"doc\" has type Struct with \"doc.text\", \"doc.x\", \
                     \"doc.Name\", the text must be a string or null";
        assert_eq!(read(columns(), named(None, "doc")), [error]);
        // A null struct has null fields. A column whose own name has a dot comes first.
        let half = structure(parts(), Some([false, true]));
        let columns = vec![("id", pair("1", "2")), ("doc", half)];
        assert_eq!(read(columns.clone(), named(None, "doc.text")), ["1//", "2//b"]);
        let columns = [columns, vec![("doc.text", pair("own", "name"))]].concat();
        assert_eq!(read(columns, named(None, "doc.text")), ["1//own", "2//name"]);
        let deep = structure(vec![("b.c", structure(vec![("d", pair("x", "y"))], None))], None);
        let columns = vec![("id", pair("1", "2")), ("a", deep)];
        assert_eq!(read(columns, named(None, "a.b.c.d")), ["1//x", "2//y"]);
    }

    #[test]
    fn lists_of_strings_are_joined_if_they_are_named() {
        let text =
            lists(&[Some(&[Some("a"), None, Some("b"), Some("")]), None, Some(&[]), Some(&[None])]);
        let id = strings(&[Some("1"), Some("2"), Some("3"), Some("4")]);
        let columns = vec![("id", id), ("text", text)];
        let error = "DIR/c.parquet: column \"text\" has lists of strings, which are joined by line \
                     ends if the column is named";
        assert_eq!(read(columns.clone(), NONE), [error]);
        assert_eq!(read(columns, [None, None, Some("text")]), ["1//a\nb\n", "2//", "3//", "4//"]);
        let two = lists(&[Some(&[Some("a"), Some("b")]), Some(&[Some("c")])]);
        let inside = structure(vec![("s", Arc::clone(&two)), ("t", two)], Some([true, false]));
        let columns = vec![("id", pair("1", "2")), ("x", pair("x", "y")), ("doc", inside)];
        assert_eq!(read(columns, [None, Some("doc.t"), Some("doc.s")]), ["1/a\nb/a\nb", "2//"]);
        let numbers = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)]), None]);
        let columns = vec![("id", pair("1", "2")), ("text", Arc::new(numbers) as ArrayRef)];
        let error =
            "DIR/c.parquet: column \"text\" has type List, the text must be a string or null";
        assert_eq!(read(columns, [None, None, Some("text")]), [error]);
    }

    #[test]
    fn lists_are_read_from_pages_of_every_kind() {
        use parquet::basic::Encoding::{DELTA_BYTE_ARRAY, DELTA_LENGTH_BYTE_ARRAY, PLAIN};
        use parquet::file::properties::WriterVersion::{PARQUET_1_0, PARQUET_2_0};
        let words: Vec<String> = (0..1000).map(|word| format!("word {word}")).collect();
        let some: Vec<Option<&str>> = words.iter().map(|word| Some(word.as_str())).collect();
        let rows: Vec<Option<&[Option<&str>]>> = some.chunks(250).map(Some).collect();
        let id = strings(&[Some("1"), Some("2"), Some("3"), Some("4")]);
        let columns = vec![("id", id), ("text", lists(&rows))];
        let expected: Vec<String> = words.chunks(250).map(|words| words.join("\n")).collect();
        for version in [PARQUET_1_0, PARQUET_2_0] {
            for encoding in
                [None, Some(PLAIN), Some(DELTA_BYTE_ARRAY), Some(DELTA_LENGTH_BYTE_ARRAY)]
            {
                let made = WriterProperties::builder().set_writer_version(version);
                let made = made
                    .set_data_page_row_count_limit(2)
                    .set_dictionary_enabled(encoding.is_none());
                let made = match encoding {
                    Some(encoding) => made.set_encoding(encoding),
                    None => made,
                };
                let bytes = parquet_with(columns.clone(), made.build());
                let read = read_bytes(&bytes, [None, None, Some("text")]);
                for (at, text) in expected.iter().enumerate() {
                    assert_eq!(read[at], format!("{}//{text}", at + 1), "{version:?} {encoding:?}");
                }
            }
        }
    }

    /// Columns of all kinds but strings, each bit of which is as good as another.
    #[test]
    fn flipped_bits_of_nested_columns_are_an_error_or_the_same_number_of_rows() {
        let two = lists(&[Some(&[Some("a"), Some("b")]), Some(&[Some("c")])]);
        let uuids =
            arrow_array::FixedSizeBinaryArray::try_from_iter([[9_u8; 16], [200; 16]].iter());
        let columns = vec![
            ("id", Arc::new(uuids.unwrap()) as ArrayRef),
            ("name", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef),
            ("doc", structure(vec![("x", pair("x", "y")), ("text", two)], Some([true, false]))),
        ];
        let bytes = parquet_bytes(columns, 1, false);
        let read = |bytes: &[u8]| read_bytes(bytes, [None, None, Some("doc.text")]);
        assert_eq!(read(&bytes)[0], "09090909-0909-0909-0909-090909090909/1/a\nb");
        let mut errors = 0;
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1 << (position % 8);
            let rows = read(&damaged);
            let error = rows.last().is_some_and(|last| last.starts_with("DIR/c.parquet"));
            assert!(error || rows.len() == 2, "byte {position}: {rows:?}");
            errors += usize::from(error);
        }
        assert!(errors > 100, "only {errors} flips were noticed");
    }

    #[test]
    fn columns_taken_and_left_out_are_told() {
        let folder = Folder::new();
        let parts = structure(vec![("text", pair("a", "b"))], None);
        let columns = vec![
            ("__index_level_0__", pair("0", "1")),
            ("docno", pair("1", "2")),
            ("doc", parts),
            ("Heading", pair("A", "B")),
            ("url", no_value(2)),
        ];
        folder.write("a.parquet", &parquet_bytes(columns, 1, true));
        let named = Columns { text: Some("DOC.text".into()), ..Columns::default() };
        let taken = folder.corpus(&["a.parquet"], named).unwrap().columns_taken().unwrap();
        let expected = r#"id from "docno", title from "Heading", text from "doc.text"; left out: "__index_level_0__", "url""#;
        assert_eq!(taken.to_string(), expected);

        folder.write("b.tsv", b"3\tno header\n");
        folder.write("c.jsonl", b"{\"id\": 4, \"body\": \"b\"}\nno JSON\n{\"id\": 5, \"body\": \"b\", \"title\": \"t\", \"x\": 0}\n");
        folder.write("d.tsv", b"id\tbody\tname\ty\n6\tb\tn\ty\n");
        let told = |inputs: &[&str]| {
            let corpus = folder.corpus(inputs, Columns::default()).unwrap();
            corpus.columns_taken().map(|taken| (taken.to_string(), taken.difference()))
        };
        let by_position = "id from field 1, no title, text from field 2";
        assert_eq!(told(&["b.tsv"]), Some((by_position.to_owned(), None)));
        folder.write("e.csv", b"");
        assert_eq!(told(&["e.csv"]), None);
        let (jsonl, difference) = told(&["b.tsv", "c.jsonl"]).unwrap();
        assert_eq!(jsonl, r#"id from "id", title from "title", text from "body"; left out: "x""#);
        assert_eq!(difference, None);
        let (_, difference) = told(&["c.jsonl", "d.tsv"]).unwrap();
        let difference = difference.unwrap().replace(folder.path(), "DIR");
        let expected = r#"the files have different columns: DIR/d.tsv: id from "id", title from "name", text from "body""#;
        assert_eq!(difference, expected);
    }
}
