//! The part of a shared build that this process begins with. In: the flag and the environment. Out: a share.

use anyhow::{Result, bail};
use hyperrag_engine::build::worker::Share;

use crate::cli::partition::Partition;

/// Variables by which Kubernetes and Slurm number the tasks of a job.
const KUBERNETES: &str = "JOB_COMPLETION_INDEX";
const SLURM: &str = "SLURM_ARRAY_TASK_ID";

/// Returns the share that the flag names, or that `variable` tells.
pub(crate) fn share(
    partition: Partition,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Share> {
    if let Partition::Part(part, of) = partition {
        return Ok(Share::Part { part, of });
    }
    let number = |name: &str| -> Result<Option<u64>> {
        let Some(text) = variable(name).filter(|text| !text.is_empty()) else { return Ok(None) };
        match text.parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => bail!("{name} is {text:?}, which is no number: give --partition I/N"),
        }
    };
    if let Some(worker) = number(KUBERNETES)? {
        return Ok(Share::Worker(worker));
    }
    let Some(task) = number(SLURM)? else {
        bail!("neither {KUBERNETES} nor {SLURM} is set: give --partition I/N");
    };
    let first = number("SLURM_ARRAY_TASK_MIN")?.unwrap_or(0);
    let step = number("SLURM_ARRAY_TASK_STEP")?.unwrap_or(1).max(1);
    let worker = task.saturating_sub(first) / step;
    let count = number("SLURM_ARRAY_TASK_COUNT")?.and_then(|count| u32::try_from(count).ok());
    let part = u32::try_from(worker).unwrap_or(u32::MAX).saturating_add(1);
    Ok(match count {
        Some(of) if part <= of => Share::Part { part, of },
        _ => Share::Worker(worker),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_of_a_job_tells_the_share() {
        let of = |partition, variables: &[(&str, &str)]| {
            share(partition, |name| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let auto = |variables: &[(&str, &str)]| of(Partition::Auto, variables);
        let part = |part, of| Share::Part { part, of };
        assert_eq!(of(Partition::Part(2, 5), &[(KUBERNETES, "9")]).unwrap(), part(2, 5));
        assert_eq!(auto(&[(KUBERNETES, "0")]).unwrap(), Share::Worker(0));
        assert_eq!(auto(&[(KUBERNETES, "7"), (SLURM, "3")]).unwrap(), Share::Worker(7));
        assert_eq!(auto(&[(SLURM, "3")]).unwrap(), Share::Worker(3));
        let (min, step) = ("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_STEP");
        let count = "SLURM_ARRAY_TASK_COUNT";
        assert_eq!(auto(&[(SLURM, "1"), (min, "1"), (count, "4")]).unwrap(), part(1, 4));
        let stepped = [(SLURM, "8"), (min, "0"), (step, "4"), (count, "3")];
        assert_eq!(auto(&stepped).unwrap(), part(3, 3));
        // A list of numbers has gaps.
        assert_eq!(auto(&[(SLURM, "90"), (min, "1"), (count, "3")]).unwrap(), Share::Worker(89));
        for (bad, said) in [
            (&[][..], "neither JOB_COMPLETION_INDEX nor SLURM_ARRAY_TASK_ID"),
            (&[(KUBERNETES, "x")], "JOB_COMPLETION_INDEX is \"x\""),
        ] {
            assert!(auto(bad).unwrap_err().to_string().contains(said));
        }
    }
}
