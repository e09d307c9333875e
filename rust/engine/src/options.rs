//! The one table of options: the name, type, default, range and meaning of each option of a generation, of a session and of
//! loading a model.
//!
//! The range checks here are the only ones. The Python package's types and defaults, the options and help of its command
//! line, the page `docs/reference/options.md` and the C structs are made from the table or tested against it.

use std::fmt;

use crate::{Error, Result};

/// What an option belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// One generation.
    Generation,
    /// A session.
    Session,
    /// Loading a model.
    Loading,
}

impl Scope {
    /// A name for programs, such as `"generation"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Generation => "generation",
            Self::Session => "session",
            Self::Loading => "loading",
        }
    }
}

/// An interface that may have an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// A keyword of the Python package.
    Python,
    /// An option of the command line.
    Cli,
    /// A setting of a chat on the command line, by `/set`.
    Set,
    /// A field of a C struct.
    C,
}

impl Interface {
    /// A name for programs, such as `"python"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Cli => "cli",
            Self::Set => "set",
            Self::C => "c",
        }
    }
}

/// The type of an option's values, and their range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A whole number of this range; a `max` of `u64::MAX` is no limit of its own.
    Int {
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
    /// A finite number of this range; an infinite bound is no limit.
    Float {
        /// The smallest.
        min: f64,
        /// The largest.
        max: f64,
        /// Whether `min` itself is out of the range.
        above_min: bool,
    },
    /// True or false.
    Bool,
    /// A text.
    Text,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// Any number of texts, none of them empty.
    Texts,
    /// Any number of token ids.
    TokenIds,
    /// A number for each of some token ids; a finite one of this size at most, or minus infinity.
    Biases {
        /// The largest, with either sign.
        max: f64,
    },
    /// The path of a file.
    Path,
    /// A function of the caller's.
    Function,
    /// True or false, or a function of the caller's that is told about the progress.
    BoolOrFunction,
}

impl Kind {
    /// A name for programs, such as `"int"`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Int { .. } => "int",
            Self::Float { .. } => "float",
            Self::Bool => "bool",
            Self::Text => "text",
            Self::Choice(_) => "choice",
            Self::Texts => "texts",
            Self::TokenIds => "token_ids",
            Self::Biases { .. } => "biases",
            Self::Path => "path",
            Self::Function => "function",
            Self::BoolOrFunction => "bool_or_function",
        }
    }
}

/// The value of an option that is not set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum DefaultValue {
    /// None, which means this, such as `"no limit"`.
    Unset(&'static str),
    /// No items, in an option that holds several.
    Empty,
    /// A whole number.
    Int(u64),
    /// A number.
    Float(f64),
    /// True or false.
    Bool(bool),
    /// A text.
    Text(&'static str),
}

/// One option.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptionSpec {
    /// The name, such as `"top_p"`.
    pub name: &'static str,
    /// What it belongs to.
    pub scope: Scope,
    /// Which values it takes.
    pub kind: Kind,
    /// What it is if it is not set.
    pub default: DefaultValue,
    /// One sentence that says what it does.
    pub help: &'static str,
    /// What a special value means, such as `"0 disables it"`.
    pub note: Option<&'static str>,
    /// A word for the value on a command line, if that of the type says too little.
    pub metavar: Option<&'static str>,
    /// Which interfaces have it.
    pub interfaces: &'static [Interface],
}

impl OptionSpec {
    /// Whether an interface has the option.
    #[must_use]
    pub fn is_in(&self, interface: Interface) -> bool {
        self.interfaces.contains(&interface)
    }
}

const PYTHON: &[Interface] = &[Interface::Python];
const LIBRARIES: &[Interface] = &[Interface::Python, Interface::C];
const COMMAND_LINE: &[Interface] = &[Interface::Python, Interface::Cli, Interface::C];
const EVERYWHERE: &[Interface] = &[Interface::Python, Interface::Cli, Interface::Set, Interface::C];
/// What may be added to a logit: more than any model's logits, and far from where f32 overflows.
const MOST_OF_A_LOGIT: f64 = 1e6;

const fn count(min: u64) -> Kind {
    Kind::Int { min, max: u64::MAX }
}

const fn number(min: f64, max: f64) -> Kind {
    Kind::Float { min, max, above_min: false }
}

const fn number_above(min: f64, max: f64) -> Kind {
    Kind::Float { min, max, above_min: true }
}

const fn option(
    scope: Scope,
    name: &'static str,
    kind: Kind,
    default: DefaultValue,
    help: &'static str,
    interfaces: &'static [Interface],
) -> OptionSpec {
    OptionSpec { name, scope, kind, default, help, note: None, metavar: None, interfaces }
}

impl OptionSpec {
    const fn note(mut self, note: &'static str) -> Self {
        self.note = Some(note);
        self
    }

    const fn metavar(mut self, metavar: &'static str) -> Self {
        self.metavar = Some(metavar);
        self
    }
}

/// Every option, in the order in which they are documented.
pub const OPTIONS: &[OptionSpec] = {
    use DefaultValue::{Bool, Empty, Float, Int, Text, Unset};
    use Scope::{Generation, Loading, Session};
    &[
        option(Generation, "max_tokens", count(1), Unset("no limit"), "Stop after this many tokens.", EVERYWHERE),
        option(
            Generation,
            "min_tokens",
            count(0),
            Int(0),
            "Forbid the end tokens before this many tokens.",
            EVERYWHERE,
        ),
        option(
            Generation,
            "timeout",
            number_above(0.0, f64::INFINITY),
            Unset("no limit"),
            "Stop after this many seconds.",
            EVERYWHERE,
        ),
        option(
            Generation,
            "temperature",
            number(0.0, 1e6),
            Float(1.0),
            "Divide the logits by this: lower values make likely tokens more likely.",
            EVERYWHERE,
        )
        .note("0 always takes the most likely token"),
        option(
            Generation,
            "top_k",
            count(1),
            Unset("all tokens"),
            "Sample from this many of the most likely tokens only.",
            EVERYWHERE,
        ),
        option(
            Generation,
            "typical_p",
            number_above(0.0, 1.0),
            Unset("all tokens"),
            "Sample from the tokens nearest to the expected surprise, whose probabilities add up to this, only.",
            EVERYWHERE,
        ),
        option(
            Generation,
            "top_p",
            number_above(0.0, 1.0),
            Unset("all tokens"),
            "Sample from the most likely tokens whose probabilities add up to this only.",
            EVERYWHERE,
        ),
        option(
            Generation,
            "min_p",
            number(0.0, 1.0),
            Unset("all tokens"),
            "Drop tokens that are less likely than this times the most likely one.",
            EVERYWHERE,
        ),
        option(
            Generation,
            "repetition_penalty",
            number(1e-3, 1e3),
            Float(1.0),
            "Divide the positive logits of recently generated tokens by this, and multiply the negative ones.",
            EVERYWHERE,
        )
        .note("1 disables it"),
        option(
            Generation,
            "repeat_last_n",
            count(0),
            Int(64),
            "Number of generated tokens that the penalties look back at.",
            EVERYWHERE,
        )
        .note("0 disables the penalties"),
        option(
            Generation,
            "presence_penalty",
            number(-MOST_OF_A_LOGIT, MOST_OF_A_LOGIT),
            Float(0.0),
            "Subtract this from the logits of recently generated tokens.",
            EVERYWHERE,
        )
        .note("0 disables it"),
        option(
            Generation,
            "frequency_penalty",
            number(-MOST_OF_A_LOGIT, MOST_OF_A_LOGIT),
            Float(0.0),
            "Subtract this from the logits of recently generated tokens, once for each time.",
            EVERYWHERE,
        )
        .note("0 disables it"),
        option(
            Generation,
            "logit_bias",
            Kind::Biases { max: MOST_OF_A_LOGIT },
            Unset("no bias"),
            "Add these numbers to the logits of single tokens.",
            LIBRARIES,
        )
        .note("-inf forbids a token"),
        option(
            Generation,
            "stop",
            Kind::Texts,
            Unset("no text"),
            "Stop before this text, which is not part of the result.",
            EVERYWHERE,
        )
        .metavar("TEXT"),
        option(
            Generation,
            "stop_token_ids",
            Kind::TokenIds,
            Empty,
            "Stop at these tokens, in addition to the model's own end tokens.",
            LIBRARIES,
        ),
        option(
            Generation,
            "seed",
            Kind::Int { min: 0, max: u64::MAX },
            Unset("a random seed"),
            "Seed of the draws: the same seed gives the same tokens.",
            EVERYWHERE,
        ),
        option(
            Generation,
            "logprobs",
            count(0),
            Unset("no log-probabilities"),
            "Report the log-probability of each token, and those of this many of the most likely ones.",
            PYTHON,
        )
        .note("0 reports the chosen tokens only"),
        option(
            Generation,
            "ignore_eos",
            Kind::Bool,
            Bool(false),
            "Continue past the model's own end tokens.",
            LIBRARIES,
        ),
        option(
            Generation,
            "echo",
            Kind::Bool,
            Bool(false),
            "Begin the text with the prompt; with logprobs, report those of the prompt too.",
            PYTHON,
        ),
        option(
            Generation,
            "on_overflow",
            Kind::Choice(&["error", "stop", "truncate_oldest"]),
            Text("error"),
            "What to do when the context is full: fail, stop, or remove the oldest messages or tokens.",
            &[Interface::Python, Interface::Cli, Interface::Set],
        ),
        option(
            Generation,
            "logits_processor",
            Kind::Function,
            Unset("no function"),
            "Call this function to edit the logits of each token before it is drawn.",
            PYTHON,
        ),
        option(
            Session,
            "n_ctx",
            count(1),
            Unset("the file's context length, at most 4096"),
            "Length of the context in tokens, for the prompt and the answer together.",
            COMMAND_LINE,
        ),
        option(
            Session,
            "kv_dtype",
            Kind::Choice(&["f16", "f32", "q8_0"]),
            Text("f16"),
            "Number format of the key-value cache.",
            COMMAND_LINE,
        ),
        option(
            Session,
            "n_threads",
            Kind::Int { min: 1, max: 1024 },
            Unset("all cores that the process may use"),
            "Number of threads that compute.",
            COMMAND_LINE,
        ),
        option(
            Session,
            "isa",
            Kind::Choice(&["scalar", "avx2", "avx-vnni", "avx512-vnni", "neon", "neon-dotprod", "neon-i8mm"]),
            Unset("the best level of the machine"),
            "Instruction set level of the kernels.",
            COMMAND_LINE,
        ),
        option(
            Session,
            "prefill_chunk",
            count(1),
            Unset("an automatic choice"),
            "Number of prompt tokens that are computed at once.",
            LIBRARIES,
        ),
        option(
            Session,
            "rope_factors",
            Kind::Choice(&["auto", "short", "long"]),
            Text("auto"),
            "Which of the LongRoPE factors to use: \"long\" avoids a recomputation in a conversation that becomes long.",
            COMMAND_LINE,
        ),
        option(
            Loading,
            "device",
            Kind::Text,
            Text("auto"),
            "Where to compute: \"auto\", \"cpu\", \"cuda\", \"cuda:N\" or \"metal\".",
            COMMAND_LINE,
        ),
        option(
            Loading,
            "executor",
            Kind::Choice(&["auto", "kernels", "candle"]),
            Text("auto"),
            "What computes: the package's own kernels, or Candle.",
            COMMAND_LINE,
        ),
        option(
            Loading,
            "mmap",
            Kind::Bool,
            Bool(true),
            "Map the file instead of reading it into memory.",
            COMMAND_LINE,
        ),
        option(
            Loading,
            "prefault",
            Kind::BoolOrFunction,
            Bool(false),
            "Read the whole file while loading, so that no answer waits for the disk.",
            COMMAND_LINE,
        ),
        option(Loading, "mlock", Kind::Bool, Bool(false), "Lock the file into memory.", COMMAND_LINE),
        option(
            Loading,
            "tokenizer",
            Kind::Path,
            Unset("the vocabulary in the file"),
            "A tokenizer.json to use instead of the vocabulary in the file.",
            COMMAND_LINE,
        ),
        option(
            Loading,
            "rstrip_control_tokens",
            Kind::Bool,
            Bool(true),
            "Let control tokens swallow the white space after them; set it to false for files of April 2024.",
            COMMAND_LINE,
        ),
        option(
            Loading,
            "chat_format",
            Kind::Choice(&["phi3", "phi4", "phi4-mini", "phi4-mini-reasoning"]),
            Unset("the template in the file"),
            "Chat format to use instead of the template in the file.",
            COMMAND_LINE,
        ),
        option(
            Loading,
            "sliding_window",
            count(0),
            Unset("the model's own window"),
            "Size of the attention window in tokens.",
            COMMAND_LINE,
        )
        .note("0 disables the window"),
    ]
};

/// The option of a name.
#[must_use]
pub fn find(name: &str) -> Option<&'static OptionSpec> {
    OPTIONS.iter().find(|option| option.name == name)
}

/// A number to hold against an option's range.
#[derive(Clone, Copy, Debug)]
pub enum Number {
    /// A whole number.
    Int(i128),
    /// A number.
    Float(f64),
    /// A number of single precision, which is shown as such.
    Single(f32),
}

impl Number {
    fn as_f64(self) -> f64 {
        match self {
            Self::Int(number) => number as f64,
            Self::Float(number) => number,
            Self::Single(number) => f64::from(number),
        }
    }
}

impl From<usize> for Number {
    fn from(number: usize) -> Self {
        Self::Int(number as i128)
    }
}

impl From<f64> for Number {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<f32> for Number {
    fn from(number: f32) -> Self {
        Self::Single(number)
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int(number) => write!(f, "{number}"),
            _ if self.as_f64().is_nan() => f.write_str("nan"),
            // 1e300, and not all of its digits.
            Self::Float(number) if number.abs() >= 1e15 => write!(f, "{number:e}"),
            Self::Single(number) if number.abs() >= 1e15 => write!(f, "{number:e}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Single(number) => write!(f, "{number}"),
        }
    }
}

/// Checks a number against the range of the option `name`, which must be one of the table. Options without a range take every
/// number.
///
/// # Errors
/// [`InvalidOption`](crate::ErrorKind::InvalidOption) with the range and what was found.
pub fn check(name: &str, number: impl Into<Number>) -> Result<()> {
    check_at(name, number, "")
}

/// As [`check`], for one of several numbers: `place` ends the message, such as `" for token 3"`.
///
/// # Errors
/// As for [`check`].
pub fn check_at(name: &str, number: impl Into<Number>, place: impl fmt::Display) -> Result<()> {
    let option = find(name).ok_or_else(|| Error::internal(format_args!("there is no option named {name:?}")))?;
    let number = number.into();
    let is_inside = match (option.kind, number) {
        (Kind::Int { min, max }, Number::Int(number)) => (i128::from(min)..=i128::from(max)).contains(&number),
        (Kind::Int { min, max }, number) => (min as f64..=max as f64).contains(&number.as_f64()),
        (Kind::Float { min, max, above_min }, number) => {
            let number = number.as_f64();
            number.is_finite() && number <= max && if above_min { number > min } else { number >= min }
        }
        (Kind::Biases { max }, number) => number.as_f64() == f64::NEG_INFINITY || number.as_f64().abs() <= max,
        _ => true,
    };
    if is_inside { Ok(()) } else { Err(out_of_range(option, number, place)) }
}

/// Checks a text against the choices of the option `name`. Options without choices take every text.
///
/// # Errors
/// [`InvalidOption`](crate::ErrorKind::InvalidOption) with the choices and what was found.
pub fn check_choice(name: &str, found: &str) -> Result<()> {
    match find(name) {
        Some(OptionSpec { name, kind: Kind::Choice(choices), .. }) if !choices.contains(&found) => {
            Err(unknown_choice(name, found))
        }
        _ => Ok(()),
    }
}

/// The error for a text that is none of an option's choices.
pub(crate) fn unknown_choice(name: &'static str, found: &str) -> Error {
    let choices = match find(name).map(|option| option.kind) {
        Some(Kind::Choice(choices)) => choices,
        _ => &[],
    };
    let listed: Vec<_> = choices.iter().map(|choice| format!("{choice:?}")).collect();
    Error::invalid_option(name, format_args!("must be one of {}, got {found:?}", listed.join(", ")))
}

fn out_of_range(option: &OptionSpec, number: Number, place: impl fmt::Display) -> Error {
    let range = match (option.kind, number) {
        // The bound is that of the type, and only told where it is met.
        (kind @ Kind::Int { max: u64::MAX, .. }, number) if number.as_f64() >= u64::MAX as f64 => {
            range_with_all_bounds(kind)
        }
        (kind, _) => range(kind),
    };
    let note = option.note.map_or_else(String::new, |note| format!(" ({note})"));
    let is_too_low = match option.kind {
        Kind::Int { min, .. } => number.as_f64() < min as f64,
        Kind::Float { min, .. } => number.as_f64() <= min,
        _ => false,
    };
    let remedy = match option.default {
        DefaultValue::Unset(meaning) if is_too_low => format!("; use None for {meaning}"),
        _ => String::new(),
    };
    Error::invalid_option(option.name, format_args!("must be {range}{note}, got {number}{place}{remedy}"))
}

/// A range in words, such as `"above 0 and at most 1"`; empty for a type without one.
#[must_use]
pub fn range(kind: Kind) -> String {
    match kind {
        Kind::Int { min, max: u64::MAX } => format!("at least {min}"),
        Kind::Float { min, max: f64::INFINITY, above_min: true } => format!("a finite number above {min}"),
        Kind::Biases { max } => format!("from -{max} to {max}"),
        kind => range_with_all_bounds(kind),
    }
}

fn range_with_all_bounds(kind: Kind) -> String {
    match kind {
        Kind::Int { min, max } => format!("from {min} to {max}"),
        Kind::Float { min, max, above_min: true } => format!("above {min} and at most {max}"),
        Kind::Float { min, max, above_min: false } => format!("from {min} to {max}"),
        _ => String::new(),
    }
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
