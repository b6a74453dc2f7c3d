//! Generation of text: the chat template around a question, the choice of tokens, and the generator.

pub(crate) mod chat_template;
mod filters;
mod format_fields;
mod formatting;
pub(crate) mod generator;
mod python;
pub(crate) mod sample;
mod spelling;
mod template_text;
mod views;
