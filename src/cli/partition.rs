//! Flags of a build that many processes share, and of its merge.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// Part of a build that a process begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Partition {
    /// The one that the environment tells.
    Auto,
    /// The I-th of N, from 1.
    Part(u32, u32),
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let numbers = text.split_once('/');
        let numbers = numbers.and_then(|(part, of)| Some((part.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((part, of)) if (1..=of).contains(&part) => Ok(Self::Part(part, of)),
            _ => Err("give a part of several, as in 1/8, or auto".to_owned()),
        }
    }
}

#[derive(Clone, Debug, Args)]
pub(crate) struct PartitionArgs {
    /// Build one store together with other processes that run the same command, on this machine or on others:
    /// begin with the I-th of N parts, then go on with what nobody builds until all is built. auto takes the
    /// number from JOB_COMPLETION_INDEX or SLURM_ARRAY_TASK_ID. `hyperrag merge` then makes the store of it.
    #[arg(
        long,
        value_name = "auto|I/N",
        conflicts_with_all = ["append", "restart", "replicas", "max_bytes", "dry_run"]
    )]
    pub(crate) partition: Option<Partition>,
    /// End when nothing is left that nobody builds, and not when all is built.
    #[arg(long, requires = "partition")]
    pub(crate) no_wait: bool,
    /// Seconds without a sign of life after which a process takes over what another has begun; the first
    /// process decides [default: 90].
    #[arg(long, requires = "partition", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) takeover_after: Option<u32>,
    /// Folder of this machine for shards that are not yet in the place of the store [default: one in the
    /// store's folder, or beside the models].
    #[arg(long, requires = "partition", value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct MergeArgs {
    /// Folder of the store, or the URL, as for `build --partition`.
    #[arg(long, env = "HYPERRAG_STORE", value_name = "DIR|URL")]
    pub(crate) store: PathBuf,
    /// Folder of this machine for the files of a store elsewhere, without its shards [default: one beside
    /// the models].
    #[arg(long, value_name = "DIR")]
    pub(crate) scratch: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_auto_or_a_part_of_several() {
        assert_eq!("auto".parse(), Ok(Partition::Auto));
        assert_eq!("1/1".parse(), Ok(Partition::Part(1, 1)));
        assert_eq!("3/8".parse(), Ok(Partition::Part(3, 8)));
        for bad in ["", "0/4", "5/4", "1", "1/", "-1/4", "a/b", "1/4/2", "Auto"] {
            assert!(bad.parse::<Partition>().is_err(), "{bad}");
        }
    }
}
