//! A file's own chat template: Jinja, rendered as Hugging Face renders it, with bounds.
//!
//! Templates are programs that come with files from anywhere. What one may do is bounded: the instructions and the
//! bytes it moves (minijinja's fuel), the text it writes, how deep it nests, and the few methods and filters whose
//! result can be much larger than what they are given.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, ErrorKind, State, UndefinedBehavior, context};

use super::{Message, REMEDY};
use crate::{Error, Result};

/// The name under which the template stands in its environment, and in messages.
const NAME: &str = "chat_template";
/// Far more than a template takes for a long conversation: one unit is an instruction, or 64 bytes.
const FUEL: u64 = 100_000;
const FUEL_PER_MESSAGE: u64 = 1_000;
/// How often the template may touch each 64 bytes of the contents.
const TOUCHES: u64 = 32;
/// How much a template may write beside the contents.
const MAX_TEMPLATE_BYTES: usize = 1 << 20;
/// The longest template; those of the family have 300 to 900 bytes, and the time to compile one grows with its square.
const MAX_SOURCE_BYTES: usize = 1 << 15;
/// An expression may nest as deep as its source is long, and is compiled and freed recursively. Only what is used of a
/// stack becomes memory.
const COMPILE_STACK_BYTES: usize = 128 << 20;
/// A list may nest as deep as the fuel lasts, and is freed recursively.
const RENDER_STACK_BYTES: usize = 128 << 20;
/// Values that a container may hold, with all that is in it, where it is written, compared or joined.
const MAX_NODES: usize = 10_000;
const MAX_DEPTH: usize = 64;
/// How long a rendering may take: thousands of times as long as one does.
const RENDER_TIME: Duration = Duration::from_secs(3);
const RENDER_TIME_PER_MEGABYTE: Duration = Duration::from_secs(1);
/// However many messages there are: a list may nest one deeper for every five units, which `RENDER_STACK_BYTES` bears.
const MAX_FUEL: u64 = 4_000_000;

/// A compiled template.
#[derive(Clone, Debug)]
pub(super) struct Jinja {
    environment: Environment<'static>,
    bos_token: String,
    eos_token: String,
    /// Whether a rendering did not end in time. It may be at work still, and there will be no second one.
    is_stuck: Arc<AtomicBool>,
}

impl Jinja {
    /// Compiles a template.
    ///
    /// # Errors
    /// [`InvalidModel`](crate::ErrorKind::InvalidModel) with the line that does not compile.
    pub(super) fn compile(source: &str, bos_token: &str, eos_token: &str) -> Result<Self> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(Error::invalid_model(format!(
                "the chat template must have at most {MAX_SOURCE_BYTES} bytes, got {}",
                source.len()
            )));
        }
        let environment = with_stack(COMPILE_STACK_BYTES, || Self::environment(source))?;
        Ok(Self {
            environment,
            bos_token: bos_token.to_owned(),
            eos_token: eos_token.to_owned(),
            is_stuck: Arc::default(),
        })
    }

    fn environment(source: &str) -> Result<Environment<'static>> {
        let mut environment = Environment::new();
        // As Hugging Face's `apply_chat_template` sets them.
        environment.set_syntax(whitespace()?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_recursion_limit(MAX_DEPTH);
        environment.set_unknown_method_callback(method);
        environment.add_function("raise_exception", raise_exception);
        environment.add_filter("tojson", to_json);
        environment.add_filter("string", |value: Value| small(&value).map(|()| value.to_string()));
        // Of minijinja's own, which Jinja has not; and one that makes a text of any length.
        for name in ["chain", "zip", "lines", "format"] {
            environment.remove_filter(name);
        }
        environment.set_formatter(|out, state, value| {
            small(value)?;
            minijinja::escape_formatter(out, state, value)
        });
        environment.add_template_owned(NAME, without_generation_tags(&source.replace("\r\n", "\n"))).map_err(
            |error| {
                let line = error.line().map(|line| format!("line {line}: ")).unwrap_or_default();
                let reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
                Error::invalid_model(format!("the chat template does not compile: {line}{reason}"))
                    .with_source(error)
            },
        )?;
        Ok(environment)
    }

    /// The prompt that the template makes of messages, given as role and content.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) where the template refuses the messages, and where it takes
    /// too long or writes too much.
    pub(super) fn render(
        &self,
        messages: &[(&str, &str)],
        add_generation_prompt: bool,
        now: &jiff::Zoned,
    ) -> Result<String> {
        let too_long = || {
            Error::invalid_input(format!(
                "the model's chat template takes too long to render the messages; {REMEDY}"
            ))
        };
        if self.is_stuck.load(Ordering::Relaxed) {
            return Err(too_long());
        }
        // Fuel does not see that a list holds another one many times over, and comparing two of these takes for ever.
        // A thread cannot be stopped, so that it is left behind, once.
        let (this, now) = (self.clone(), now.clone());
        let owned: Vec<(String, String)> =
            messages.iter().map(|(role, content)| ((*role).to_owned(), (*content).to_owned())).collect();
        let bytes: usize = messages.iter().map(|(_, content)| content.len()).sum();
        let (sender, outcome) = channel();
        thread::Builder::new()
            .name("candle-phi-template".to_owned())
            .stack_size(RENDER_STACK_BYTES)
            .spawn(move || {
                let messages: Vec<(&str, &str)> =
                    owned.iter().map(|(role, content)| (role.as_str(), content.as_str())).collect();
                // Nobody to hear it is no reason to stop: it was too late.
                drop(sender.send(this.render_here(&messages, add_generation_prompt, &now)));
            })
            .map_err(|error| no_thread(&error))?;
        let limit = RENDER_TIME + RENDER_TIME_PER_MEGABYTE * u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        match outcome.recv_timeout(limit) {
            Ok(outcome) => outcome,
            Err(RecvTimeoutError::Timeout) => {
                self.is_stuck.store(true, Ordering::Relaxed);
                Err(too_long())
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(Error::invalid_model("the chat template cannot be rendered"))
            }
        }
    }

    fn render_here(
        &self,
        messages: &[(&str, &str)],
        add_generation_prompt: bool,
        now: &jiff::Zoned,
    ) -> Result<String> {
        let content_bytes: usize = messages.iter().map(|(_, content)| content.len()).sum();
        let mut environment = self.environment.clone();
        let fuel = FUEL + FUEL_PER_MESSAGE * messages.len() as u64 + TOUCHES * (content_bytes as u64 / 64);
        environment.set_fuel(Some(fuel.min(MAX_FUEL)));
        let now = now.clone();
        environment.add_function("strftime_now", move |format: &str| strftime(format, &now));
        let list: Vec<Value> =
            messages.iter().map(|(role, content)| context! { role => *role, content => *content }).collect();
        let variables = context! {
            messages => list,
            add_generation_prompt,
            bos_token => self.bos_token.as_str(),
            eos_token => self.eos_token.as_str(),
            // What is not given is none, not undefined: templates ask `tools is not none`.
            tools => (),
            documents => (),
        };
        let mut out = Bounded { bytes: Vec::new(), most: MAX_TEMPLATE_BYTES + TOUCHES as usize * content_bytes };
        let rendered = environment
            .get_template(NAME)
            .and_then(|template| template.render_captured_to(variables, &mut out).map(|_| ()));
        rendered.map_err(|error| refusal(&error))?;
        String::from_utf8(out.bytes)
            .map_err(|error| Error::inference(format!("the chat template did not write UTF-8: {error}")))
    }
}

fn no_thread(error: &io::Error) -> Error {
    Error::inference(format!("the system cannot start another thread: {error}"))
}

/// Runs `work` on a stack of this size, so that deep recursion does not end the process.
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

fn refusal(error: &minijinja::Error) -> Error {
    let line = error.line().map(|line| format!(" in line {line}")).unwrap_or_default();
    let mut reason = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    if error.kind() == ErrorKind::OutOfFuel || error.kind() == ErrorKind::WriteFailure {
        "the prompt is too long, or takes too long to render".clone_into(&mut reason);
    }
    if matches!(error.kind(), ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction) {
        return Error::invalid_model(format!("the chat template cannot be rendered{line}: {reason}"));
    }
    Error::invalid_input(format!(
        "the model's chat template rejects the messages{line}: {reason}; change them, or {REMEDY}"
    ))
    .about("messages")
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

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> minijinja::Error {
    minijinja::Error::new(ErrorKind::InvalidOperation, message)
}

/// Refuses a container so large or so deep that writing it would take for ever: a list that holds a list twice, which
/// holds a list twice, takes no memory and no end.
fn small(value: &Value) -> std::result::Result<(), minijinja::Error> {
    let mut nodes = 0;
    count(value, 0, &mut nodes)
}

fn count(value: &Value, depth: usize, nodes: &mut usize) -> std::result::Result<(), minijinja::Error> {
    *nodes += 1;
    if *nodes > MAX_NODES || depth > MAX_DEPTH {
        return Err(invalid("a list or mapping is too large to be written"));
    }
    match value.kind() {
        ValueKind::Map => {
            for key in value.try_iter()? {
                count(&key, depth + 1, nodes)?;
                count(&value.get_item(&key)?, depth + 1, nodes)?;
            }
            Ok(())
        }
        ValueKind::Seq | ValueKind::Iterable => {
            value.try_iter()?.try_for_each(|item| count(&item, depth + 1, nodes))
        }
        _ => Ok(()),
    }
}

/// The methods of Python's strings, lists and mappings.
fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    arguments: &[Value],
) -> std::result::Result<Value, minijinja::Error> {
    const MAX_BYTES: usize = 16 << 20;
    match (name, value.as_str(), arguments) {
        ("replace", Some(text), [old, new, ..]) => {
            let (old, new) = (old.as_str().unwrap_or_default(), new.as_str().unwrap_or_default());
            let places = if old.is_empty() { text.len() + 1 } else { text.matches(old).count() };
            if places.saturating_mul(new.len()) > MAX_BYTES {
                return Err(invalid("the text is too long"));
            }
        }
        ("join", Some(separator), [items, ..]) => {
            small(items)?;
            if separator.len().saturating_mul(items.len().unwrap_or(MAX_NODES)) > MAX_BYTES {
                return Err(invalid("the text is too long"));
            }
        }
        // A width in a format makes a text of any length.
        ("format", ..) => return Err(minijinja::Error::from(ErrorKind::UnknownMethod)),
        _ => {}
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, arguments)
}

fn raise_exception(message: String) -> std::result::Result<Value, minijinja::Error> {
    Err(invalid(message))
}

/// The local time, as Python's `datetime.now().strftime`.
fn strftime(format: &str, now: &jiff::Zoned) -> std::result::Result<String, minijinja::Error> {
    const MAX_FORMAT_BYTES: usize = 256;
    if format.len() > MAX_FORMAT_BYTES {
        return Err(invalid("strftime_now: the format is too long"));
    }
    jiff::fmt::strtime::format(format, now).map_err(|error| invalid(format!("strftime_now: {error}")))
}

/// JSON as Hugging Face's own `tojson` filter writes it: what is not ASCII and what HTML would escape stay as they are.
fn to_json(value: Value, arguments: Kwargs) -> std::result::Result<String, minijinja::Error> {
    const MAX_INDENT: usize = 16;
    small(&value)?;
    let indent: Option<usize> = arguments.get("indent")?;
    let _: Option<bool> = arguments.get("ensure_ascii")?;
    arguments.assert_all_used()?;
    let mut out = Vec::new();
    let failed = |error: serde_json::Error| invalid(format!("tojson: {error}"));
    match indent {
        None => {
            let mut serializer = serde_json::Serializer::with_formatter(&mut out, Spaced);
            serde::Serialize::serialize(&value, &mut serializer).map_err(failed)?;
        }
        Some(width) => {
            let indent = " ".repeat(width.min(MAX_INDENT));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
            serde::Serialize::serialize(&value, &mut serializer).map_err(failed)?;
        }
    }
    String::from_utf8(out).map_err(|error| invalid(format!("tojson: {error}")))
}

/// Python's separators: a space behind each comma and colon.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
