//! Output of commands: sentences that more than one says, tables, runs. Printing itself is in `report`.

pub(crate) mod arithmetic;
pub(crate) mod batch;
pub(crate) mod bench;
pub(crate) mod bench_device;
pub(crate) mod build;
pub(crate) mod build_progress;
pub(crate) mod info;
pub(crate) mod money;
pub(crate) mod plan;
pub(crate) mod plan_chart;
pub(crate) mod plan_simulation;
pub(crate) mod plan_verdict;
pub(crate) mod quality_runs;
pub(crate) mod ranked;
pub(crate) mod sizes;
pub(crate) mod store;
pub(crate) mod table;
pub(crate) mod tiers;
