//! A model's chat template, to what stands around a user's words.

use std::collections::HashMap;

use candle_core::quantized::gguf_file::Value;
use hyperrag_kv::Turn;
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, context};

use crate::LoadError;
use crate::metadata::Reader;

const KEY: &str = "tokenizer.chat_template";

/// Steps that a template may take: far more than any needs.
const FUEL: u64 = 1 << 20;

/// What a user and a model say while the template is rendered. It is cut there, so that no text is
/// ever rendered: a template could change it, and the tokenizer would parse it.
const USER: &str = "hyperrag0user0words";
const MODEL: &str = "hyperrag0model0words";

/// A chat template, as far as one question needs it.
#[derive(Debug, PartialEq)]
pub(crate) struct Chat {
    pub(crate) turn: Turn,
    /// Template text after the model's words.
    pub(crate) end: String,
}

impl Chat {
    /// The chat template of a model; `None` where it has none.
    pub(crate) fn from_metadata(
        metadata: &HashMap<String, Value>,
    ) -> Result<Option<Self>, LoadError> {
        if !metadata.contains_key(KEY) {
            return Ok(None);
        }
        let reader = Reader(metadata);
        let template = reader.text(KEY)?;
        let tokens = reader.texts("tokenizer.ggml.tokens")?;
        let special = |key| {
            let token = reader.token(key)?;
            Ok(token.and_then(|token| tokens.get(token as usize).cloned()).unwrap_or_default())
        };
        let bos = special("tokenizer.ggml.bos_token_id")?;
        let eos = special("tokenizer.ggml.eos_token_id")?;
        Self::new(&template, &bos, &eos).map(Some)
    }

    /// The turns of a template.
    pub(crate) fn new(template: &str, bos: &str, eos: &str) -> Result<Self, LoadError> {
        let wrong = |what| LoadError::Metadata { key: KEY.to_owned(), what };
        let render = |answered, answers| {
            let rendered = render(template, bos, eos, answered, answers);
            rendered.map_err(|error| wrong(format!("cannot be rendered: {error}")))
        };
        let lost = || wrong("does not print what a user says once and as it is".to_owned());
        let question = render(false, true)?;
        let (before, after) = question.split_once(USER).ok_or_else(lost)?;
        if after.contains(USER) {
            return Err(lost());
        }
        let turn = Turn { before: before.to_owned(), after: after.to_owned() };
        // Templates need not know how to end a turn of the model's.
        let answered = render(true, false).unwrap_or_default();
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
    // As transformers renders chat templates.
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
    use super::*;

    fn chat(template: &str) -> Result<Option<Chat>, LoadError> {
        let text = |text: &str| Value::String(text.to_owned());
        let tokens = vec![text("<s>"), text("</s>")];
        Chat::from_metadata(&HashMap::from([
            (KEY.to_owned(), text(template)),
            ("tokenizer.ggml.tokens".to_owned(), Value::Array(tokens)),
            ("tokenizer.ggml.bos_token_id".to_owned(), Value::U32(0)),
            ("tokenizer.ggml.eos_token_id".to_owned(), Value::U32(1)),
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
        ] {
            let error = chat(template).unwrap_err().to_string();
            assert!(error.contains(words) && error.contains(KEY), "{template}: {error}");
        }
        assert_eq!(Chat::from_metadata(&HashMap::new()).unwrap(), None);
        // A template that has only one turn is of use.
        let once = "{% if messages | length > 1 %}{{ raise_exception('no') }}{% endif %}Q: {{ messages[0].content }}\nA:";
        let found = chat(once).unwrap().unwrap();
        assert_eq!((found.turn.after.as_str(), found.end.as_str()), ("\nA:", ""));
    }
}
