//! Generation of text: the chat template around a question, the choice of tokens, and the generator.

pub(crate) mod chat_template;
pub(crate) mod generator;
mod python;
pub(crate) mod sample;
mod template_text;
