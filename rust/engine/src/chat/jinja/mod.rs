//! A file's own chat template: Jinja, rendered as Hugging Face renders it, with bounds.
//!
//! Templates are programs that come with files from anywhere. The library parses and runs them, and counts instructions
//! and bytes (fuel). What it would not count is written here: a template is rewritten ([`lower`]) so that its operators,
//! literals and methods are functions of this module, and Jinja's filters and tests are this module's too. They behave as
//! Python's, and pay for each value and byte before they visit or make it. So a rendering ends, with its memory, when
//! the fuel does.

mod arguments;
mod clock;
mod compare;
mod filters;
mod functions;
#[cfg(test)]
mod golden;
mod json;
mod lists;
mod lower;
mod methods;
mod operators;
mod predicates;
mod printf;
mod text;
mod value;

use std::io;
use std::thread;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Rest, Value, ValueOrKwargs};
use minijinja::{Environment, ErrorKind, State, UndefinedBehavior};

use super::{Message, work};
use crate::{Error, Result};
use arguments::Arguments;
pub(super) use clock::Clock;

/// The name under which the template stands in its environment, and in messages.
const NAME: &str = "chat_template";
/// Far more than a template takes for a long conversation: one unit is an instruction, or 64 bytes.
const FUEL: u64 = 100_000;
const FUEL_PER_MESSAGE: u64 = 1_000;
/// How often the template may touch each 64 bytes of the contents: an addition of texts pays for the left one, for the
/// memory, and for the sum.
const TOUCHES: u64 = 64;
/// How often the template may write the contents.
const WRITES: usize = 32;
/// However many messages there are.
const MAX_FUEL: u64 = 4_000_000;
/// How much a template may write beside the contents.
const MAX_TEMPLATE_BYTES: usize = 1 << 20;
/// The longest template; those of the family have 300 to 900 bytes, and the time to compile one grows with its square.
const MAX_SOURCE_BYTES: usize = 1 << 15;
/// An expression may nest as deep as its source is long, and is compiled and freed recursively. Only what is used of a
/// stack becomes memory.
const COMPILE_STACK_BYTES: usize = 128 << 20;
/// Macros call each other.
const RENDER_STACK_BYTES: usize = 16 << 20;
const MAX_RECURSION: usize = 64;
/// The engine lists the names of a namespace to tell whether it is true, for one instruction.
const MAX_ATTRIBUTES: usize = 64;

/// What a function of a template gives.
type Outcome<T = Value> = std::result::Result<T, minijinja::Error>;
/// A filter, operator or function.
type Builtin = fn(&mut State<'_, '_>, Arguments) -> Outcome;

/// A compiled template.
#[derive(Clone, Debug)]
pub(super) struct Jinja {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
    remedy: String,
}

impl Jinja {
    /// Compiles a template. `remedy` is what errors of its rendering advise.
    ///
    /// # Errors
    /// [`InvalidModel`](crate::ErrorKind::InvalidModel) with the line that does not compile.
    pub(super) fn compile(source: &str, bos_token: &str, eos_token: &str, remedy: &str) -> Result<Self> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(Error::invalid_model(format!(
                "the chat template must have at most {MAX_SOURCE_BYTES} bytes, got {}",
                source.len()
            )));
        }
        let environment = with_stack(COMPILE_STACK_BYTES, || environment(source))?;
        Ok(Self {
            environment,
            bos_token: bos_token.to_owned(),
            eos_token: eos_token.to_owned(),
            remedy: remedy.to_owned(),
        })
    }

    /// What to do if the template cannot render messages.
    pub(super) fn remedy(&self) -> &str {
        &self.remedy
    }

    /// The prompt that the template makes of messages, given as role and content.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) if the template refuses the messages, and if it takes too much
    /// work or writes too much.
    pub(super) fn render(
        &self,
        messages: &[(&str, &str)],
        add_generation_prompt: bool,
        clock: &Clock,
    ) -> Result<String> {
        let (rendered, fuel) =
            with_stack(RENDER_STACK_BYTES, || self.render_here(messages, add_generation_prompt, clock))?;
        work::count(fuel as usize);
        Ok(rendered)
    }

    /// The prompt, and the fuel that it took.
    fn render_here(
        &self,
        messages: &[(&str, &str)],
        add_generation_prompt: bool,
        clock: &Clock,
    ) -> Result<(String, u64)> {
        let content_bytes: usize = messages.iter().map(|(_, content)| content.len()).sum();
        let mut environment = self.environment.clone();
        let fuel = FUEL + FUEL_PER_MESSAGE * messages.len() as u64 + TOUCHES * (content_bytes as u64 / 64);
        environment.set_fuel(Some(fuel.min(MAX_FUEL)));
        let clock = clock.clone();
        environment.add_function("strftime_now", move |format: &str| clock.strftime(format));
        let message = |(role, content): &(&str, &str)| {
            value::dict([
                (Value::from("role"), Value::from(*role)),
                (Value::from("content"), Value::from(*content)),
            ])
        };
        let list: Vec<Value> = messages.iter().map(message).collect();
        let variables = minijinja::context! {
            messages => Value::from(list),
            add_generation_prompt,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
            // What is not given is none, not undefined: templates ask `tools is not none`.
            tools => (),
            documents => (),
        };
        let mut out = Bounded { bytes: Vec::new(), most: MAX_TEMPLATE_BYTES + WRITES * content_bytes };
        let rendered = environment.get_template(NAME).and_then(|template| {
            let captured = template.render_captured_to(variables, &mut out)?;
            Ok(captured.state().fuel_levels().map_or(0, |(consumed, _)| consumed))
        });
        let fuel = rendered.map_err(|error| self.refusal(&error))?;
        let text = String::from_utf8(out.bytes)
            .map_err(|error| Error::inference(format!("the chat template did not write UTF-8: {error}")))?;
        Ok((text, fuel))
    }

    fn refusal(&self, error: &minijinja::Error) -> Error {
        let line = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
        let mut reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        if error.kind() == ErrorKind::OutOfFuel || error.kind() == ErrorKind::WriteFailure {
            "the prompt is too long, or takes too long to render".clone_into(&mut reason);
        }
        if matches!(error.kind(), ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction) {
            return Error::invalid_model(format!(
                "the chat template cannot be rendered{line}: {reason} or not supported; {}",
                self.remedy
            ));
        }
        Error::invalid_input(format!(
            "the model's chat template rejects the messages{line}: {reason}; change them, or {}",
            self.remedy
        ))
        .about("messages")
    }
}

fn environment(source: &str) -> Result<Environment<'static>> {
    let lowered = lower::lower(&without_generation_tags(&source.replace("\r\n", "\n")))?;
    let mut environment = Environment::empty();
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_recursion_limit(MAX_RECURSION);
    for (name, filter) in operators::OPERATORS.into_iter().chain(filters::FILTERS) {
        environment.add_filter(name, move |state: &mut State<'_, '_>, values: Rest<ValueOrKwargs>| {
            filter(state, Arguments::new(name, values.into_values())?)
        });
    }
    for (name, filter) in lists::FILTERS {
        environment.add_filter(name, move |state: &mut State<'_, '_>, values: Rest<ValueOrKwargs>| {
            let made = filter(state, Arguments::new(name, values.into_values())?)?;
            // These nest lists in lists.
            value::check(state, &made)?;
            Ok(made)
        });
    }
    for (name, test) in predicates::TESTS {
        environment.add_test(name, move |state: &mut State<'_, '_>, values: Rest<ValueOrKwargs>| {
            test(state, &Arguments::new(name, values.into_values())?)
        });
    }
    for (name, function) in functions::FUNCTIONS {
        environment.add_function(name, move |state: &mut State<'_, '_>, values: Rest<ValueOrKwargs>| {
            function(state, Arguments::new(name, values.into_values())?)
        });
    }
    environment.set_formatter(|out, state, value| {
        let text = value::text(state, value)?;
        out.write_str(&text).map_err(|_| minijinja::Error::from(ErrorKind::WriteFailure))
    });
    environment.add_template_owned(NAME, lowered).map_err(|error| does_not_compile(&error))?;
    Ok(environment)
}

/// Whether a filter of Jinja has this name; operators are not filters to a template.
fn is_filter(name: &str) -> bool {
    filters::FILTERS.iter().chain(&lists::FILTERS).any(|(known, _)| *known == name)
}

fn is_test(name: &str) -> bool {
    predicates::TESTS.iter().any(|(known, _)| *known == name)
}

fn does_not_compile(error: &minijinja::Error) -> Error {
    let reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line().and_then(|line| u16::try_from(line).ok()) {
        Some(line) => problem(line, &reason),
        None => Error::invalid_model(format!("the chat template does not compile: {reason}")),
    }
}

/// An error of a line that does not compile.
fn problem(line: u16, reason: &str) -> Error {
    Error::invalid_model(format!("the chat template does not compile: line {line}: {reason}"))
}

fn no_thread(error: &io::Error) -> Error {
    Error::inference(format!("the system cannot start another thread: {error}"))
}

/// Runs `work` on a stack of this size and waits for it, so that deep recursion does not end the process.
fn with_stack<T: Send>(bytes: usize, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("candle-phi-template".to_owned())
            .stack_size(bytes)
            .spawn_scoped(scope, work)
            .map_err(|error| no_thread(&error))?;
        worker.join().unwrap_or_else(|_| Err(Error::invalid_model("the chat template cannot be rendered")))
    })
}

/// The template with `{% generation %}` and `{% endgeneration %}` made into tags that do nothing. They mark, for those
/// who train a model, what the assistant says: Phi-4-reasoning's template has them.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        out.push_str(before);
        out.push_str("{%");
        let signs = tag.len() - tag.trim_start_matches(['-', '+']).len();
        let (sign, body) = tag.split_at(signs.min(1));
        let spaces = body.len() - body.trim_start().len();
        let (space, word) = body.split_at(spaces);
        let instead =
            [("generation", "if true"), ("endgeneration", "endif")].into_iter().find_map(|(name, instead)| {
                let behind = word.strip_prefix(name)?;
                behind.trim_start().trim_start_matches(['-', '+']).starts_with("%}").then_some((instead, behind))
            });
        rest = match instead {
            Some((instead, behind)) => {
                out.extend([sign, space, instead]);
                behind
            }
            None => tag,
        };
    }
    out.push_str(rest);
    out
}

fn whitespace() -> Result<SyntaxConfig> {
    SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
        .map_err(|error| Error::inference("the syntax of chat templates cannot be set up").with_source(error))
}

/// The messages of a conversation as the template gets them.
pub(super) fn pairs(messages: &[Message]) -> Vec<(&'static str, &str)> {
    messages.iter().map(|message| (message.role.as_str(), message.content.as_str())).collect()
}

/// A text that grows up to a bound.
struct Bounded {
    bytes: Vec<u8>,
    most: usize,
}

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.most {
            return Err(io::Error::other("the prompt is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
