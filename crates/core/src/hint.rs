//! Remedies in the words of no program: the data of a remedy come in, and the program that met the error
//! spells it. Knows neither flags nor commands.

use crate::document::DocumentField;

/// Remedy for an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Name the column of the input that holds this field.
    NameColumn(DocumentField),
    /// Change the values of the field, or name another column for it.
    OtherColumn(DocumentField),
    /// Split a document, or allow longer ones.
    LongerDocuments,
    /// Give the reader more memory, or take the other way.
    MoreMemory {
        /// Other way, in the imperative.
        or: &'static str,
    },
    /// Give the build at least so much memory.
    MemoryAtLeast {
        /// Memory, in bytes.
        bytes: u64,
        /// Whether less would do for shorter documents.
        or_shorter_documents: bool,
    },
    /// Make chunks longer.
    LongerChunks,
    /// Compute in a type with a larger range.
    WiderDtype,
    /// Free memory of the device, or compute on the CPU.
    FreeDeviceMemory,
    /// Have the system allow more threads, or start fewer.
    FewerThreads,
    /// Make the question, the instruction or the answer shorter.
    ShorterPrompt,
    /// Give the model and the profile that the store was made with.
    GiveStoreModel,
    /// Rank with documents computed again, as blocks of a prompt with the query first cannot be stored.
    RecomputeQuery,
    /// Mend the store, or have damaged blocks computed again.
    RepairOrRecompute,
    /// Mend the store, or end its build again: both rebuild the index.
    RebuildIndex,
    /// Tell the store its replicas again.
    NameReplicas,
    /// Add or replace documents, or build another store.
    Append,
    /// Add new documents, build another store, or give the first input again.
    AppendOrSameInput,
    /// Give the input of the unfinished append again, or forget what it sealed.
    SameInputOrRestart,
    /// Allow a larger store.
    LargerStore,
}
