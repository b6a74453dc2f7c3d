//! Turns a model's chat template into the text around a user's words.
//!
//! In: a template and the texts of its special tokens. Out: text before and after. It renders no text
//! of a user, and does not know token ids.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use chrono::{DateTime, Utc};
use hyperrag_core::{Turn, guarded};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value, context};

use crate::error::LoadError;
use crate::format::gguf::header::Metadata;
use crate::format::gguf::metadata_reader::MetadataReader;
use crate::generate::template_text::{PERCENT, rewritten};
use crate::generate::{filters, python};

const KEY: &str = "tokenizer.chat_template";

/// Largest size of a template, in bytes: the longest known ones have 20,000. It bounds how deep the
/// template's parts nest.
pub(crate) const BYTES_MAX: usize = 1 << 16;

/// Number of steps that a template may take, each worth 64 bytes of its output: far more than any
/// needs. It bounds memory, output, and how deep values nest.
const FUEL: u64 = 1 << 16;

/// Stack of the thread that renders, in bytes. The engine recurses as deep as templates and values
/// nest.
const STACK_BYTES: usize = 256 << 20;

/// Time that rendering may take: far more than any template needs. Values that hold themselves twice, again
/// and again, take no steps and no memory to make, but for ever to print or compare.
const TIME_MAX: Duration = Duration::from_secs(10);

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
        let [bos, eos] = special_texts(metadata)?;
        let chat = Self::new(&template, &bos, &eos);
        chat.map(Some).map_err(|what| LoadError::Metadata { key: KEY.to_owned(), what })
    }

    /// Renders a template and cuts it into turns.
    ///
    /// # Errors
    /// The fault of the template.
    pub(crate) fn new(template: &str, bos: &str, eos: &str) -> Result<Self, String> {
        Self::within(TIME_MAX, template, bos, eos)
    }

    /// Renders and cuts like [`ChatTemplate::new`], and gives up after `time_max`.
    fn within(time_max: Duration, template: &str, bos: &str, eos: &str) -> Result<Self, String> {
        if template.len() > BYTES_MAX {
            return Err(format!("has {} bytes, {BYTES_MAX} at most are read", template.len()));
        }
        let now = python::fixed_time();
        let texts = [template, bos, eos].map(str::to_owned);
        let (sender, receiver) = mpsc::channel();
        let both = move || {
            let [template, bos, eos] = &texts;
            let both = [(false, true), (true, false)].map(|(answered, answers)| {
                let rendered = guarded(|| render(template, bos, eos, answered, answers, now));
                let rendered = rendered.map_err(|panic| panic.to_string());
                rendered.and_then(|rendered| rendered.map_err(|error| said(&error)))
            });
            // Nobody waits for a rendering that was given up.
            let _ = sender.send(both);
        };
        let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn(both);
        thread.map_err(|error| format!("has no thread to be rendered: {error}"))?;
        let [question, answered] = receiver
            .recv_timeout(time_max)
            .map_err(|_| format!("is not rendered within {} seconds", time_max.as_secs()))?;
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

/// Returns the texts of the tokens that begin and end a text, by the metadata of a GGUF.
pub(crate) fn special_texts(metadata: &Metadata) -> Result<[String; 2], LoadError> {
    let reader = MetadataReader(metadata);
    let tokens = reader.texts("tokenizer.ggml.tokens")?;
    let special = |key| {
        let token = reader.token(key)?;
        Ok(token.and_then(|token| tokens.get(token as usize).cloned()).unwrap_or_default())
    };
    Ok([special("tokenizer.ggml.bos_token_id")?, special("tokenizer.ggml.eos_token_id")?])
}

/// Says why a template is not rendered.
fn said(error: &Error) -> String {
    match error.kind() {
        ErrorKind::OutOfFuel => format!(
            "it takes more than {FUEL} steps, of which each pays for 64 bytes of text ({error})"
        ),
        _ => error.to_string(),
    }
}

fn render(
    template: &str,
    bos: &str,
    eos: &str,
    answered: bool,
    answers: bool,
    now: Option<DateTime<Utc>>,
) -> Result<String, Error> {
    let mut messages = vec![context! { role => "user", content => USER }];
    if answered {
        messages.push(context! { role => "assistant", content => MODEL });
    }
    // As transformers fills them in for a chat without tools.
    let values = context! {
        messages, add_generation_prompt => answers, bos_token => bos, eos_token => eos,
        tools => (), documents => (),
    };
    environment(now)?.render_str(&rewritten(template)?, &values)
}

/// Makes the environment in which transformers renders chat templates, at the time `now` or at present.
fn environment(now: Option<DateTime<Utc>>) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
    environment.set_syntax(syntax);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(python::method);
    environment.add_function("raise_exception", |message: Value| -> Result<String, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, message.to_string()))
    });
    environment.add_function("strftime_now", move |format: &str| python::strftime(format, now));
    minijinja_contrib::add_to_environment(&mut environment);
    filters::add(&mut environment);
    environment.set_formatter(filters::print);
    environment.add_filter("wordcount", |text: &str| python::words(text).count());
    environment.add_filter("tojson", python::tojson);
    environment.add_filter(PERCENT, python::percent);
    Ok(environment)
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

    /// Checks what `scripts/chat_golden.py` wrote with jinja2.
    #[test]
    fn templates_print_what_they_do_in_python() {
        #[derive(serde::Deserialize)]
        struct Golden {
            name: String,
            template: String,
            text: String,
        }
        let golden = include_str!("../../../../testdata/golden/chat-templates.json");
        let golden: Vec<Golden> = serde_json::from_str(golden).unwrap();
        let now = DateTime::from_timestamp(1_709_788_143, 0);
        let mut wrong = Vec::new();
        for Golden { name, template, text } in &golden {
            let rendered = render(template, "<s>", "</s>", false, true, now);
            if rendered.as_ref().ok() != Some(text) {
                wrong.push(format!("{name}\n  {rendered:?}\n  expected {text:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        assert!(golden.len() > 30);
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
    fn what_is_not_read_as_in_python_is_refused_by_name() {
        let turn = "{{ messages[0].content }}";
        for (template, words) in [
            ("{% macro m(a) %}{{ varargs }}{% endmacro %}{{ m(1, 2) }}", "varargs of a macro"),
            ("{% macro m() %}{% for k in kwargs %}{% endfor %}{% endmacro %}", "kwargs of a macro"),
            ("{{ 'a'.encode() }}", "encode"),
            ("{{ namespace(a=1) }}", "object of the engine"),
            ("{{ [1] | map('string') }}", "a generator cannot be printed"),
            (
                "{% macro m(a, b=a) %}{% endmacro %}",
                "a default of a macro that names its argument a",
            ),
            ("{{ '\\N{BULLET}' }}", "the escape \\N"),
            ("{{ '%q' % 1 }}", "no conversion 'q'"),
            ("{{ '%d' % 'x' }}", "%d takes an integer"),
            ("{{ '{:5}'.format(none) }}", "cannot apply \"5\" to a none"),
            ("{{ '{0.__class__}'.format('x') }}", "__class__"),
        ] {
            let error = chat(&[turn, template].concat()).unwrap_err().to_string();
            assert!(error.contains(words), "{template}: {error}");
        }
        // Names of the template's own.
        for own in ["{% macro m(kwargs) %}{{ kwargs }}{% endmacro %}", "{% set kwargs = 1 %}"] {
            chat(&[turn, own, "{{ kwargs }}"].concat()).unwrap();
        }
    }

    #[test]
    fn texts_of_any_width_are_bounded_before_they_are_made() {
        for template in [
            "{{ '%999999999s' % 'x' }}",
            "{{ '%*d' % (999999999, 1) }}",
            "{{ '%.999999999f' % 1.5 }}",
            "{{ '%.*e' % (999999999, 1.5) }}",
            "{{ '%99999999999999999999s' % 'x' }}",
            "{{ '%999999999d' | format(1) }}",
            "{{ '{:>999999999}'.format('x') }}",
            "{{ '{:{}}'.format('x', 999999999) }}",
            "{{ '{:.999999999f}'.format(1.5) }}",
            "{{ '{:0999999999,d}'.format(1) }}",
            "{{ 'x'.ljust(999999999) }}",
            "{{ 'x'.zfill(999999999) }}",
            "{{ 'x' | center(999999999) }}",
            "{{ 'x' | indent(999999999) }}",
            "{{ [1] | tojson(indent=999999999) }}",
        ] {
            let error = chat(template).unwrap_err().to_string();
            assert!(error.contains("65536 at most are made"), "{template}: {error}");
        }
        for template in [
            "{{ 'x' * 999999999 }}",
            "{{ (1,) * 999999999 }}",
            "{% for i in range(99) %}{{ '%65536s' % 'x' }}{% endfor %}",
            "{% for i in range(99) %}{% set x = '{:65536}'.format('x') %}{% endfor %}",
            "{{ 'xxxxxxxxxxxxxxxx'.replace('x', '%65536s' % '').replace(' ', '%65536s' % '') }}",
        ] {
            let error = chat(template).unwrap_err().to_string();
            assert!(error.contains("more than 65536 steps"), "{template}: {error}");
        }
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

    #[test]
    fn a_rendering_that_takes_too_long_is_given_up() {
        let template = "{% for message in messages %}{{ message.content }}{% endfor %}";
        ChatTemplate::new(template, "", "").unwrap();
        let error = ChatTemplate::within(Duration::ZERO, template, "", "").unwrap_err();
        assert_eq!(error, "is not rendered within 0 seconds");
    }
}
