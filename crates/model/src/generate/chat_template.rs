//! Turns a model's chat template into the text around a user's words.
//!
//! In: a template and the texts of its special tokens. Out: text before and after. It renders no text
//! of a user, and does not know token ids.

use std::thread;

use hyperrag_core::{Turn, guarded};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, context};

use crate::error::LoadError;
use crate::format::gguf::header::Metadata;
use crate::format::gguf::metadata_reader::MetadataReader;

const KEY: &str = "tokenizer.chat_template";

/// Largest size of a template, in bytes: the longest known ones have 20,000. It bounds how deep the
/// template's parts nest.
const BYTES_MAX: usize = 1 << 16;

/// Number of steps that a template may take, each worth 64 bytes of its output: far more than any
/// needs. It bounds memory, output, and how deep values nest.
const FUEL: u64 = 1 << 16;

/// Stack of the thread that renders, in bytes. The engine recurses as deep as templates and values
/// nest.
const STACK_BYTES: usize = 256 << 20;

/// Placeholders for the words of user and model. The rendered template is cut at them, so no text is
/// ever rendered: a template could change it, and the tokenizer would parse it.
const USER: &str = "hyperrag0user0words";
const MODEL: &str = "hyperrag0model0words";

/// A chat template, as far as a single question needs it.
#[derive(Debug, PartialEq)]
pub(crate) struct ChatTemplate {
    pub(crate) turn: Turn,
    /// Template text after the model's words.
    pub(crate) end: String,
}

impl ChatTemplate {
    /// Reads the chat template of a model; `None` if it has none.
    pub(crate) fn from_metadata(metadata: &Metadata) -> Result<Option<Self>, LoadError> {
        if !metadata.contains_key(KEY) {
            return Ok(None);
        }
        let reader = MetadataReader(metadata);
        let template = reader.text(KEY)?;
        let tokens = reader.texts("tokenizer.ggml.tokens")?;
        let special = |key| {
            let token = reader.token(key)?;
            Ok(token.and_then(|token| tokens.get(token as usize).cloned()).unwrap_or_default())
        };
        let bos = special("tokenizer.ggml.bos_token_id")?;
        let eos = special("tokenizer.ggml.eos_token_id")?;
        let chat = Self::new(&template, &bos, &eos);
        chat.map(Some).map_err(|what| LoadError::Metadata { key: KEY.to_owned(), what })
    }

    /// Renders a template and cuts it into turns.
    ///
    /// # Errors
    /// The fault of the template.
    pub(crate) fn new(template: &str, bos: &str, eos: &str) -> Result<Self, String> {
        if template.len() > BYTES_MAX {
            return Err(format!("has {} bytes, {BYTES_MAX} at most are read", template.len()));
        }
        let [question, answered] = thread::scope(|scope| {
            let both = || {
                [(false, true), (true, false)].map(|(answered, answers)| {
                    let rendered = guarded(|| render(template, bos, eos, answered, answers));
                    let rendered = rendered.map_err(|panic| panic.to_string());
                    rendered.and_then(|rendered| rendered.map_err(|error| error.to_string()))
                })
            };
            let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, both);
            let thread =
                thread.map_err(|error| format!("has no thread to be rendered: {error}"))?;
            thread.join().map_err(|_| "cannot be rendered".to_owned())
        })?;
        let lost = || "does not print what a user says once and as it is".to_owned();
        let question = question.map_err(|error| format!("cannot be rendered: {error}"))?;
        let (before, after) = question.split_once(USER).ok_or_else(lost)?;
        if after.contains(USER) {
            return Err(lost());
        }
        let turn = Turn { before: before.to_owned(), after: after.to_owned() };
        // A template need not know how to end a turn of the model.
        let answered = answered.unwrap_or_default();
        let end = answered.split_once(MODEL).map_or("", |(_, end)| end).to_owned();
        Ok(Self { turn, end })
    }
}

fn render(
    template: &str,
    bos: &str,
    eos: &str,
    answered: bool,
    answers: bool,
) -> Result<String, Error> {
    let mut environment = Environment::new();
    // Like transformers' rendering of chat templates.
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message))
    });
    let mut messages = vec![context! { role => "user", content => USER }];
    if answered {
        messages.push(context! { role => "assistant", content => MODEL });
    }
    let values = context! {
        messages, add_generation_prompt => answers, bos_token => bos, eos_token => eos,
    };
    environment.render_str(template, values)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::format::gguf::header::MetadataValue;

    fn chat(template: &str) -> Result<Option<ChatTemplate>, LoadError> {
        let text = |text: &str| MetadataValue::String(text.to_owned());
        let tokens = vec![text("<s>"), text("</s>")];
        ChatTemplate::from_metadata(&HashMap::from([
            (KEY.to_owned(), text(template)),
            ("tokenizer.ggml.tokens".to_owned(), MetadataValue::Array(tokens)),
            ("tokenizer.ggml.bos_token_id".to_owned(), MetadataValue::U32(0)),
            ("tokenizer.ggml.eos_token_id".to_owned(), MetadataValue::U32(1)),
        ]))
    }

    #[test]
    fn templates_are_cut_at_the_users_words() {
        let smollm = "{% for message in messages %}{% if loop.first and messages[0]['role'] != \
            'system' %}{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + \
            message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if \
            add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";
        let found = chat(smollm).unwrap().unwrap();
        assert_eq!(found.turn.before, "<|im_start|>system\nBe kind<|im_end|>\n<|im_start|>user\n");
        assert_eq!(found.turn.after, "<|im_end|>\n<|im_start|>assistant\n");
        assert_eq!(found.end, "<|im_end|>\n");

        let llama = "{{ bos_token }}{% for message in messages %}
            {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
                {{- raise_exception('roles must alternate') }}
            {%- endif %}
            {%- if message['role'] == 'user' %}
                {{- '[INST] ' + message['content'].strip() + ' [/INST]' }}
            {%- else %}
                {{- ' ' + message.content + ' ' + eos_token }}
            {%- endif %}
        {%- endfor %}";
        let found = chat(llama).unwrap().unwrap();
        assert_eq!(found.turn, Turn { before: "<s>[INST] ".into(), after: " [/INST]".into() });
        assert_eq!(found.end, " </s>");
    }

    #[test]
    fn templates_of_no_use_are_refused() {
        for (template, words) in [
            ("{% for", "cannot be rendered"),
            ("{{ raise_exception('not so') }}", "not so"),
            (
                "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
                "fuel",
            ),
            ("hello", "does not print"),
            ("{% for i in [1, 2] %}{{ messages[0].content }}{% endfor %}", "once"),
            ("{{ messages[0].content | upper }}", "as it is"),
            // Two million characters from few steps.
            (
                "{% set ns = namespace(x='xx') %}{% for i in range(20) %}{% set ns.x = ns.x ~ ns.x %}\
              {% endfor %}{{ ns.x }}",
                "fuel",
            ),
        ] {
            let error = chat(template).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(KEY), "{template}: {error}");
        }
        assert_eq!(ChatTemplate::from_metadata(&HashMap::new()).unwrap(), None);
        // A template that supports a single turn is of use.
        let once = "{% if messages | length > 1 %}{{ raise_exception('no') }}{% endif %}Q: {{ messages[0].content }}\nA:";
        let found = chat(once).unwrap().unwrap();
        assert_eq!((found.turn.after.as_str(), found.end.as_str()), ("\nA:", ""));
    }

    #[test]
    fn depth_is_bounded_by_the_stack() {
        let turn = "{{ messages[0].content }}";
        // Nested parts of a template, as many as its bytes allow.
        for [first, again, last] in [
            ["{{ 1", "+1", "}}"],
            ["{{ x", "|a", "}}"],
            ["{{ x", ".a", "}}"],
            ["{{ '' ", "~''", "}}"],
        ] {
            let room = BYTES_MAX - turn.len() - first.len() - last.len();
            let template = [turn, first, &again.repeat(room / again.len()), last].concat();
            // Success of the rendering does not matter.
            let _ = chat(&template);
            let error = chat(&[&template, &"x".repeat(100)[..]].concat()).unwrap_err().to_string();
            assert!(error.contains("65536 at most"), "{error}");
        }
        // Nested values, as many as the steps allow.
        for show in
            ["", "{{ ns.x }}", "{{ ns.x == [ns.x] }}", "{{ ns.x | tojson }}", "{{ ns.x | length }}"]
        {
            let template = format!(
                "{turn}{{% set ns = namespace(x=[]) %}}{{% for i in range(99999) %}}\
                 {{% set ns.x = [ns.x] %}}{{% endfor %}}{show}"
            );
            assert!(chat(&template).unwrap_err().to_string().contains("fuel"));
            let _ = chat(&template.replace("99999", "6000"));
        }
    }
}
