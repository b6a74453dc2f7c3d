//! The cost in quality of smaller element types and other arithmetic: judged queries, their candidates
//! scored by several models, and what each ranking is worth.

pub mod candidates;
pub mod cost;
pub mod pass;
pub mod report;
