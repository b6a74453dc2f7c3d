//! Pure measures: rankings, judgements, answers and samples in, numbers out. They open no file.

pub mod agreement;
pub mod evaluate;
mod formula;
pub mod measure;
pub mod measure_name;
pub mod qa;
pub mod qrels;
pub mod run;
pub mod significance;
pub mod stats;
