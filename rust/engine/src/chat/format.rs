//! The chat formats of the family.

use std::fmt;
use std::str::FromStr;

use super::ending::Ending;
use super::{Message, Role};
use crate::options::unknown_choice;
use crate::tokenizer::{Part, Tokenizer};
use crate::{Error, Result};

const END_OF_TEXT: &str = "<|endoftext|>";
/// What Phi-4-mini-reasoning was trained to be told first, always.
const REASONING_SYSTEM: &str = "Your name is Phi, an AI math expert developed by Microsoft.";

/// A chat format that models of the family were trained with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChatFormat {
    /// Phi-3 and Phi-3.5, as of July 2024: `<|user|>\n{content}<|end|>\n<|assistant|>\n`. The first
    /// revision's template dropped system messages without a word; this one writes them.
    Phi3,
    /// Phi-4: `<|im_start|>user<|im_sep|>{content}<|im_end|><|im_start|>assistant<|im_sep|>`.
    Phi4,
    /// Phi-4-mini: `<|user|>{content}<|end|><|assistant|>`.
    Phi4Mini,
    /// Phi-4-mini-reasoning: as Phi-4-mini, behind a system message of its own that always comes first; the
    /// texts of other system messages are put at its end.
    Phi4MiniReasoning,
}

/// The control tokens that a format's turns are made of.
struct Turns {
    /// Stands before the role's name: Phi-4's roles are text between two control tokens.
    start: Option<&'static str>,
    /// Stands behind the role's name.
    separator: Option<&'static str>,
    end: &'static str,
    /// Text behind a role and behind the end of a turn.
    newline: &'static str,
    /// Stands at the end of a text without a generation prompt.
    end_of_text: Option<&'static str>,
}

impl ChatFormat {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Phi3, Self::Phi4, Self::Phi4Mini, Self::Phi4MiniReasoning];

    /// The format that a vocabulary's control tokens belong to, if it is one of a model that was trained to chat.
    #[must_use]
    pub fn detect(tokenizer: &Tokenizer) -> Option<Self> {
        if Self::Phi4.missing_control(tokenizer).is_none() {
            return Some(Self::Phi4);
        }
        if Self::Phi3.missing_control(tokenizer).is_some() {
            return None;
        }
        // Phi-4-mini has the control tokens of Phi-3, but its vocabulary needs no tokens for bytes.
        let sentence_piece = tokenizer.token_id("<0x0A>").is_some();
        Some(if sentence_piece { Self::Phi3 } else { Self::Phi4Mini })
    }

    /// The formats whose control tokens a vocabulary has.
    pub(super) fn supported(tokenizer: &Tokenizer) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|format| format.missing_control(tokenizer).is_none())
    }

    /// What to do if a file's own chat template does not work with this vocabulary.
    pub(super) fn remedy(tokenizer: &Tokenizer) -> String {
        match Self::detect(tokenizer) {
            Some(format) => format!("set chat_format to the format of the model's family, such as \"{format}\""),
            None => {
                "use a raw prompt, because the vocabulary lacks the control tokens of every chat format".to_owned()
            }
        }
    }

    /// The format's name: `"phi3"`, `"phi4"`, `"phi4-mini"` or `"phi4-mini-reasoning"`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Phi3 => "phi3",
            Self::Phi4 => "phi4",
            Self::Phi4Mini => "phi4-mini",
            Self::Phi4MiniReasoning => "phi4-mini-reasoning",
        }
    }

    /// The first control token that every prompt of the format has in it and that the vocabulary lacks.
    pub(super) fn missing_control(self, tokenizer: &Tokenizer) -> Option<&'static str> {
        let needed: &[&str] = match self {
            Self::Phi3 | Self::Phi4Mini => &["<|user|>", "<|assistant|>", "<|end|>"],
            Self::Phi4 => &["<|im_start|>", "<|im_sep|>", "<|im_end|>"],
            Self::Phi4MiniReasoning => &["<|user|>", "<|assistant|>", "<|end|>", "<|system|>"],
        };
        needed.iter().copied().find(|text| tokenizer.control(text).is_none())
    }

    fn turns(self) -> Turns {
        match self {
            Self::Phi3 => Turns {
                start: None,
                separator: None,
                end: "<|end|>",
                newline: "\n",
                end_of_text: Some(END_OF_TEXT),
            },
            Self::Phi4 => Turns {
                start: Some("<|im_start|>"),
                separator: Some("<|im_sep|>"),
                end: "<|im_end|>",
                newline: "",
                end_of_text: None,
            },
            Self::Phi4Mini | Self::Phi4MiniReasoning => {
                Turns { start: None, separator: None, end: "<|end|>", newline: "", end_of_text: Some(END_OF_TEXT) }
            }
        }
    }

    /// The prompt, part by part.
    pub(super) fn parts(self, messages: &[Message], ending: Ending) -> Vec<Part<'_>> {
        let mut parts = Vec::with_capacity(6 * messages.len() + 8);
        if self == Self::Phi4MiniReasoning {
            parts.extend([Part::Control("<|system|>"), Part::Text(REASONING_SYSTEM)]);
            for message in messages.iter().filter(|message| message.role == Role::System) {
                parts.extend([Part::Text(" "), Part::Text(&message.content)]);
            }
            parts.push(Part::Control("<|end|>"));
        }
        self.push_messages(messages, ending, &mut parts);
        parts
    }

    /// The parts that stand behind an answer: its end, the new messages and the generation prompt.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) for messages that the format does not write behind an
    /// answer.
    pub(super) fn turn_parts(self, messages: &[Message]) -> Result<Vec<Part<'_>>> {
        if self == Self::Phi4MiniReasoning && messages.iter().any(|message| message.role == Role::System) {
            return Err(Error::invalid_option(
                "messages",
                format_args!(
                    "cannot have a system message after the start of a conversation in the chat format \"{self}\"; start a \
                     new conversation, or put the text into a user message"
                ),
            ));
        }
        let turns = self.turns();
        let mut parts = vec![Part::Control(turns.end), Part::Text(turns.newline)];
        self.push_messages(messages, Ending::GenerationPrompt, &mut parts);
        Ok(parts)
    }

    fn push_messages<'a>(self, messages: &'a [Message], ending: Ending, parts: &mut Vec<Part<'a>>) {
        let turns = self.turns();
        for message in messages {
            if self == Self::Phi4MiniReasoning && message.role == Role::System {
                continue;
            }
            turns.push_header(message.role, parts);
            parts.push(Part::Text(&message.content));
            parts.extend([Part::Control(turns.end), Part::Text(turns.newline)]);
        }
        match ending {
            Ending::GenerationPrompt => turns.push_header(Role::Assistant, parts),
            // The last message is the assistant's: its end is what stands last.
            Ending::OpenMessage => parts.truncate(parts.len().saturating_sub(2)),
            Ending::EndOfText => parts.extend(turns.end_of_text.map(Part::Control)),
        }
    }
}

impl Turns {
    fn push_header(&self, role: Role, parts: &mut Vec<Part<'_>>) {
        match (self.start, self.separator) {
            (Some(start), Some(separator)) => {
                parts.extend([Part::Control(start), Part::Text(role.as_str()), Part::Control(separator)]);
            }
            _ => parts.extend([
                Part::Control(match role {
                    Role::System => "<|system|>",
                    Role::User => "<|user|>",
                    Role::Assistant => "<|assistant|>",
                }),
                Part::Text(self.newline),
            ]),
        }
    }
}

impl fmt::Display for ChatFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ChatFormat {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|format| format.as_str() == text)
            .ok_or_else(|| unknown_choice("chat_format", text))
    }
}
