//! Remedies in the words of no program: the data of a remedy come in, and the program that met the error
//! spells it. Knows neither flags nor commands.

use std::fmt;
use std::path::PathBuf;

use crate::block::kv_dtype::KvDtype;
use crate::document::DocumentField;

/// A sentence for the user about something that is no error, with its remedy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The sentence.
    pub what: String,
    /// Remedy.
    pub hint: Option<Hint>,
}

impl From<String> for Warning {
    fn from(what: String) -> Self {
        Self { what, hint: None }
    }
}

/// Part of what a store was made with that it notes by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotedPart {
    /// Model.
    Model,
    /// A tokenizer in the place of the model's.
    Tokenizer,
    /// Profile.
    Profile,
}

impl fmt::Display for NotedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Tokenizer => "tokenizer",
            Self::Profile => "profile",
        })
    }
}

/// Remedy for an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hint {
    /// Name the column of the input that holds this field.
    NameColumn(DocumentField),
    /// Change the values of the field, or name another column for it.
    OtherColumn(DocumentField),
    /// Name the format of the input.
    NameFormat,
    /// Say whether quotes enclose fields.
    ReadQuotes,
    /// Leave out rows that cannot be read.
    SkipBadRows,
    /// Use another folder for temporary files.
    OtherTemporaryFolder,
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
    /// Remove the folder of a copy and copy again, or copy to another folder.
    ReplicateAnew,
    /// Mend what only a replica can mend; without one, build again.
    RepairFromReplica,
    /// Make chunks longer.
    LongerChunks,
    /// Make chunks of at most so many positions.
    ShorterChunks {
        /// Positions.
        most: usize,
    },
    /// Compute in a type with a larger range.
    WiderDtype,
    /// Compute with weights and products of one of these types.
    UseDtype(&'static str),
    /// Store K and V in this type.
    UseKvDtype(KvDtype),
    /// Compute on the CPU.
    UseCpu,
    /// Free memory of the device, or compute on the CPU.
    FreeDeviceMemory,
    /// Free memory, or hold the weights in a type of half the size.
    SmallerWeights,
    /// Have the system allow more threads, or start fewer.
    FewerThreads,
    /// Make the question, the instruction or the answer shorter.
    ShorterPrompt,
    /// Make the query shorter, or use a store of shorter chunks. One of the two numbers is not 0.
    ShorterQuery {
        /// Tokens that the query may have beside every chunk of the store; 0 if there is no room.
        tokens_max: usize,
        /// Tokens that chunks may have beside the query; 0 if there is no room.
        chunk_tokens_max: usize,
    },
    /// Fetch the model of this name.
    PullModel {
        /// Name of the model.
        name: String,
    },
    /// Name the folder where models are kept.
    NameModelFolder,
    /// Build a store in this folder.
    BuildStore {
        /// Folder of the store.
        path: PathBuf,
    },
    /// Have a unit of the build hold fewer rows.
    SmallerUnits,
    /// Finish a build or an append.
    FinishBuild {
        /// Whether forgetting what an append sealed would do too.
        or_restart: bool,
    },
    /// Begin an append anew.
    RestartAppend,
    /// Give the model and the profile that the store was made with.
    GiveStoreModel,
    /// Name the model that the store was made with.
    NameStoreModel {
        /// Name of the model, if the store notes it.
        noted: Option<String>,
    },
    /// Say where a part is now that the store notes by name.
    NameAnew(NotedPart),
    /// Give the tokenizer that the store notes.
    GiveNotedTokenizer {
        /// Path of the tokenizer.
        noted: String,
    },
    /// Give the tokenizer of the model as a file of its own.
    GiveTokenizer,
    /// Give another chat template than the model's.
    GiveChatTemplate,
    /// Name the profile that the store was made with, or build another store.
    GiveStoreProfile,
    /// Give all that decides on the store's bytes as for its build.
    GiveBuildSettings,
    /// Make the store independent of the file of its model.
    UpgradeStore,
    /// Rank with documents computed again, as blocks of a prompt with the query first cannot be stored.
    RecomputeQuery,
    /// Mend the store.
    Repair,
    /// Bring back a replica that is not behind, or allow an older state of the store.
    AcceptOlder,
    /// Mend the store, or have damaged blocks computed again.
    RepairOrRecompute,
    /// Mend the store, or end its build again: both rebuild the index.
    RebuildIndex,
    /// Tell the store its replicas again.
    NameReplicas,
    /// Look up the replicas that the store remembers.
    ListReplicas,
    /// Have the store forget a replica.
    ForgetReplica,
    /// Add or replace documents, or build another store.
    Append,
    /// Add new documents, build another store, or give the first input again.
    AppendOrSameInput,
    /// Give the input of the unfinished append again, or forget what it sealed.
    SameInputOrRestart,
    /// Allow a larger store.
    LargerStore,
}
