//! The contents of an index: its fields, its analyzer, and the note of a commit.

use crate::analyzer::Analyzer;
use crate::hit::Location;
use hyperrag_core::{DocId, Document, ShardId, Slot};
use tantivy::TantivyDocument;
use tantivy::index::IndexMeta;
use tantivy::schema::{
    FAST, Field, FieldType, IndexRecordOption, NumericOptions, STORED, STRING, Schema,
    TextFieldIndexing, TextOptions, Value,
};

/// Place where an index keeps the ids of its documents and the locations of their blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// In the stored document, beside its text. Older versions wrote indexes so.
    Stored,
    /// In columns, which are read without the text.
    Columns,
}

impl Layout {
    /// Returns the words at the end of a commit's note, because of which a version that knows stored
    /// locations only refuses columns.
    fn note(self) -> &'static str {
        match self {
            Self::Stored => "",
            Self::Columns => " layout 2",
        }
    }
}

#[derive(Clone)]
pub(crate) struct Fields {
    pub(crate) analyzer: Analyzer,
    pub(crate) layout: Layout,
    pub(crate) schema: Schema,
    pub(crate) id: Field,
    pub(crate) title: Field,
    pub(crate) text: Field,
    pub(crate) body: Field,
    pub(crate) row: Field,
    pub(crate) shard: Field,
    pub(crate) slot: Field,
    pub(crate) chunks: Field,
}

/// Name of the field that is searched.
const BODY: &str = "body";

/// Name of the column that breaks ties.
pub(crate) const ROW: &str = "row";

/// Names of the columns of [`Layout::Columns`].
pub(crate) const ID: &str = "id";
pub(crate) const SHARD: &str = "shard";
pub(crate) const SLOT: &str = "slot";
pub(crate) const CHUNKS: &str = "chunks";

impl Fields {
    /// Returns the fields of the index with this list of segments: for the analyzer that its commit
    /// names, else the one in its schema, and in the layout of its schema.
    pub(crate) fn of(meta: &IndexMeta) -> Self {
        let committed = meta.payload.as_deref().and_then(|note| note.split(' ').next());
        let in_schema = || {
            let body = meta.schema.get_field(BODY).ok()?;
            match meta.schema.get_field_entry(body).field_type() {
                FieldType::Str(options) => Some(options.get_indexing_options()?.tokenizer()),
                _ => None,
            }
        };
        let analyzer = committed.and_then(Analyzer::of_id);
        let analyzer = analyzer.or_else(|| Analyzer::of_id(in_schema()?));
        let shard = meta.schema.get_field(SHARD);
        let has_columns = shard.is_ok_and(|shard| meta.schema.get_field_entry(shard).is_fast());
        let layout = if has_columns { Layout::Columns } else { Layout::Stored };
        Self::new(analyzer.unwrap_or(Analyzer::ENGLISH), layout)
    }

    pub(crate) fn new(analyzer: Analyzer, layout: Layout) -> Self {
        let words = TextFieldIndexing::default()
            .set_tokenizer(&analyzer.id())
            .set_index_option(IndexRecordOption::WithFreqs);
        let (id_options, place_options) = match layout {
            Layout::Stored => (STRING | STORED, NumericOptions::from(STORED)),
            Layout::Columns => (STRING | FAST, NumericOptions::from(FAST)),
        };
        let mut builder = Schema::builder();
        let id = builder.add_text_field(ID, id_options);
        let title = builder.add_text_field("title", STORED);
        let text = builder.add_text_field("text", STORED);
        let body = builder.add_text_field(BODY, TextOptions::default().set_indexing_options(words));
        let row = builder.add_u64_field(ROW, FAST);
        let shard = builder.add_u64_field(SHARD, place_options.clone());
        let slot = builder.add_u64_field(SLOT, place_options.clone());
        let chunks = builder.add_u64_field(CHUNKS, place_options);
        let schema = builder.build();
        Self { analyzer, layout, schema, id, title, text, body, row, shard, slot, chunks }
    }

    pub(crate) fn encode(
        &self,
        row: u64,
        document: &Document,
        location: Location,
    ) -> TantivyDocument {
        let mut encoded = TantivyDocument::new();
        encoded.add_text(self.id, document.id.as_str());
        encoded.add_text(self.title, &document.title);
        encoded.add_text(self.text, &document.text);
        encoded.add_text(self.body, format!("{} {}", document.title, document.text));
        encoded.add_u64(self.row, row);
        encoded.add_u64(self.shard, location.shard.0.into());
        encoded.add_u64(self.slot, location.first_slot.0.into());
        encoded.add_u64(self.chunks, location.chunks.into());
        encoded
    }

    /// Decodes the title and the text of a document; `None` for stored bytes that [`Fields::encode`]
    /// never made.
    pub(crate) fn decode(&self, id: &DocId, stored: &TantivyDocument) -> Option<Document> {
        let text = |field| stored.get_first(field)?.as_str().map(str::to_owned);
        Some(Document { id: id.clone(), title: text(self.title)?, text: text(self.text)? })
    }

    /// Decodes the id and the location of a document in [`Layout::Stored`]; `None` as in
    /// [`Fields::decode`].
    pub(crate) fn decode_location(&self, stored: &TantivyDocument) -> Option<(DocId, Location)> {
        let number = |field| u32::try_from(stored.get_first(field)?.as_u64()?).ok();
        let id = DocId::stored(stored.get_first(self.id)?.as_str()?).ok()?;
        let location = Location {
            shard: ShardId(number(self.shard)?),
            first_slot: Slot(number(self.slot)?),
            chunks: number(self.chunks)?,
        };
        Some((id, location))
    }
}

/// The note of a commit.
///
/// tantivy checksums its segment files, but not the file that lists them. The number of documents is
/// repeated here, under a checksum, so that a wrong list is found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Commit {
    /// End of the range of shards in the index, which begins with shard 0.
    pub(crate) shards: u32,
    /// Number of documents in the index.
    pub(crate) documents: u64,
}

impl Commit {
    pub(crate) fn to_payload(self, analyzer: Analyzer, layout: Layout) -> String {
        let (analyzer, layout) = (analyzer.id(), layout.note());
        let Self { shards, documents } = self;
        let note = format!("{analyzer} shards {shards} documents {documents}{layout}");
        let checksum = crc32fast::hash(note.as_bytes());
        format!("{note}{CHECKSUM}{checksum:08x}")
    }

    pub(crate) fn from_payload(
        payload: &str,
        analyzer: Analyzer,
        layout: Layout,
    ) -> Result<Self, PayloadError> {
        let (note, checksum) = payload.rsplit_once(CHECKSUM).ok_or(PayloadError::Damaged)?;
        if checksum != format!("{:08x}", crc32fast::hash(note.as_bytes())) {
            return Err(PayloadError::Damaged);
        }
        let note = note.strip_suffix(layout.note()).ok_or(PayloadError::OtherVersion)?;
        let words: Vec<&str> = note.split(' ').collect();
        let [id, "shards", shards, "documents", documents] = words[..] else {
            return Err(PayloadError::OtherVersion);
        };
        if id != analyzer.id() {
            return Err(PayloadError::OtherVersion);
        }
        match (shards.parse(), documents.parse()) {
            (Ok(shards), Ok(documents)) => Ok(Self { shards, documents }),
            _ => Err(PayloadError::OtherVersion),
        }
    }
}

const CHECKSUM: &str = " crc32 ";

/// Reason why the note of a commit cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PayloadError {
    /// A note that differs from what was written.
    Damaged,
    /// A note of another version.
    OtherVersion,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::analyzer::Rules;

    #[test]
    fn a_changed_payload_is_refused() {
        let read =
            |payload: &str| Commit::from_payload(payload, Analyzer::ENGLISH, Layout::Columns);
        let commit = Commit { shards: 12, documents: 3_000 };
        let payload = commit.to_payload(Analyzer::ENGLISH, Layout::Columns);
        assert_eq!(read(&payload), Ok(Commit { shards: 12, documents: 3_000 }));
        for at in 0..payload.len() {
            for bit in 0..7 {
                let mut bytes = payload.clone().into_bytes();
                bytes[at] ^= 1 << bit;
                let changed = String::from_utf8(bytes).unwrap();
                assert_eq!(read(&changed), Err(PayloadError::Damaged), "{changed}");
            }
        }
        assert_eq!(read(""), Err(PayloadError::Damaged));
        let note = "hyperrag_english_3 shards 1";
        let other = format!("{note} crc32 {:08x}", crc32fast::hash(note.as_bytes()));
        assert_eq!(read(&other), Err(PayloadError::OtherVersion));
        let german = Commit::default().to_payload("german".parse().unwrap(), Layout::Columns);
        assert_eq!(read(&german), Err(PayloadError::OtherVersion));
        let former = Analyzer::ENGLISH.by(Rules::First);
        let older = commit.to_payload(former, Layout::Stored);
        assert_eq!(older, "hyperrag_english_1 shards 12 documents 3000 crc32 00698c3c");
        assert_eq!(read(&older), Err(PayloadError::OtherVersion));
        for layout in [Layout::Stored, Layout::Columns] {
            let by_former = |payload: &str| Commit::from_payload(payload, former, layout);
            assert_eq!(by_former(&commit.to_payload(former, layout)), Ok(commit));
            let refused = Err(PayloadError::OtherVersion);
            assert_eq!(by_former(&payload), refused, "as older versions read it");
        }
        let columns = commit.to_payload(former, Layout::Columns);
        let stored = |payload| Commit::from_payload(payload, former, Layout::Stored);
        assert_eq!(stored(&columns), Err(PayloadError::OtherVersion), "as older versions read it");
    }
}
