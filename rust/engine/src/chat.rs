//! Messages to prompt tokens.
//!
//! A message's content never becomes a control token. The template is a list of parts: its control
//! tokens, which are looked up, and texts, its own and the contents, which are encoded as plain text. On
//! contents that hold no control token's text the ids are those of the whole rendered string.

use std::fmt;
use std::str::FromStr;

use crate::gguf::Gguf;
use crate::tokenizer::{Part, Tokenizer};
use crate::{Error, Result};

const SYSTEM: &str = "<|system|>";
const USER: &str = "<|user|>";
const ASSISTANT: &str = "<|assistant|>";
const END: &str = "<|end|>";
const END_OF_TEXT: &str = "<|endoftext|>";

/// Who speaks in a [`Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Instructions that stand before the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// `"system"`, `"user"` or `"assistant"`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "system" => Ok(Self::System),
            "user" => Ok(Self::User),
            "assistant" => Ok(Self::Assistant),
            _ => Err(Error::invalid_option(format!(
                "role: expected \"system\", \"user\" or \"assistant\", found {text:?}"
            ))),
        }
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said. Control tokens in it are plain text.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }

    /// A message of the system.
    pub fn system(content: impl Into<String>) -> Self {
        Self::new(Role::System, content)
    }

    /// A message of the user.
    pub fn user(content: impl Into<String>) -> Self {
        Self::new(Role::User, content)
    }

    /// A message of the assistant.
    pub fn assistant(content: impl Into<String>) -> Self {
        Self::new(Role::Assistant, content)
    }
}

/// The template that a model was trained with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatFormat {
    /// Phi-3 and Phi-3.5, as of July 2024: `<|user|>\n{content}<|end|>\n<|assistant|>\n`. The first
    /// revision's template dropped system messages without a word; this one writes them.
    Phi3,
}

impl ChatFormat {
    /// The format of a model, if it is one that was trained to chat.
    #[must_use]
    pub fn detect(gguf: &Gguf, tokenizer: &Tokenizer) -> Option<Self> {
        // Phi-4-mini has the same control tokens, but another template; its vocabulary is of another kind.
        let sentence_piece = matches!(gguf.optional_str("tokenizer.ggml.model"), Ok(None | Some("llama")));
        let has_tokens = [USER, ASSISTANT, END].iter().all(|text| tokenizer.control(text).is_some());
        (sentence_piece && has_tokens).then_some(Self::Phi3)
    }

    /// The format's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Phi3 => "phi3",
        }
    }

    /// The prompt as text, to look at. Encode messages with [`encode`](Self::encode), which keeps control
    /// tokens in their contents from being taken for the template's.
    ///
    /// Without a generation prompt the text ends with the end-of-text token, as the family's template does,
    /// unless the final message is left open to be continued.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) for no messages, for both options at once, and for
    /// a final message to continue that is not the assistant's.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        continue_final_message: bool,
    ) -> Result<String> {
        let parts = self.parts(messages, Ending::new(messages, add_generation_prompt, continue_final_message)?);
        Ok(parts
            .into_iter()
            .map(|part| match part {
                Part::Control(text) | Part::Text(text) => text,
            })
            .collect())
    }

    /// The prompt as token ids, with BOS first where the model wants it.
    ///
    /// # Errors
    /// Those of [`render`](Self::render), and [`UnsupportedModel`](crate::ErrorKind::UnsupportedModel) where
    /// the vocabulary lacks a control token that the template needs.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
        continue_final_message: bool,
    ) -> Result<Vec<u32>> {
        let ending = Ending::new(messages, add_generation_prompt, continue_final_message)?;
        let mut ids: Vec<u32> = tokenizer.bos_id().filter(|_| tokenizer.add_bos()).into_iter().collect();
        ids.extend(tokenizer.encode_parts(&self.parts(messages, ending))?);
        Ok(ids)
    }

    /// The ids that new messages add to a conversation: the messages and a generation prompt, with BOS only
    /// if they are the `first`.
    ///
    /// `encode_turn(.., true)`, then the answer's ids, [`turn_end`](Self::turn_end), `encode_turn(.., false)` and
    /// so on are the ids of the whole conversation.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode).
    pub fn encode_turn(&self, tokenizer: &Tokenizer, messages: &[Message], first: bool) -> Result<Vec<u32>> {
        if first {
            return self.encode(tokenizer, messages, true, false);
        }
        let mut parts = self.turn_end_parts();
        parts.extend(self.parts(messages, Ending::new(messages, true, false)?));
        let mut ids = tokenizer.encode_parts(&parts)?;
        // The end token is there for what it does to the text after it; the caller has it already.
        ids.drain(..self.turn_end(tokenizer)?.len().min(ids.len()));
        Ok(ids)
    }

    /// The ids that close an assistant's turn.
    ///
    /// # Errors
    /// [`UnsupportedModel`](crate::ErrorKind::UnsupportedModel) where the vocabulary lacks the token.
    pub fn turn_end(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        match self {
            Self::Phi3 => tokenizer.encode_parts(&[Part::Control(END)]),
        }
    }

    /// The end of the turn before, with the text that follows it.
    fn turn_end_parts(self) -> Vec<Part<'static>> {
        match self {
            Self::Phi3 => vec![Part::Control(END), Part::Text("\n")],
        }
    }

    fn parts(self, messages: &[Message], ending: Ending) -> Vec<Part<'_>> {
        match self {
            Self::Phi3 => phi3_parts(messages, ending),
        }
    }
}

impl fmt::Display for ChatFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What comes after the messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// The beginning of the assistant's turn.
    GenerationPrompt,
    /// Nothing: the final message is not closed either.
    OpenMessage,
    EndOfText,
}

impl Ending {
    fn new(messages: &[Message], add_generation_prompt: bool, continue_final_message: bool) -> Result<Self> {
        let Some(last) = messages.last() else {
            return Err(Error::invalid_option("messages: expected at least one message, found none"));
        };
        match (add_generation_prompt, continue_final_message) {
            (true, true) => Err(Error::invalid_option(
                "add_generation_prompt begins a new message and continue_final_message goes on with the last; \
                 expected one of them, found both",
            )),
            (false, true) if last.role != Role::Assistant => Err(Error::invalid_option(format!(
                "continue_final_message: expected the last message to be the assistant's, found the {}'s",
                last.role
            ))),
            (false, true) => Ok(Self::OpenMessage),
            (true, false) => Ok(Self::GenerationPrompt),
            (false, false) => Ok(Self::EndOfText),
        }
    }
}

fn phi3_parts(messages: &[Message], ending: Ending) -> Vec<Part<'_>> {
    let mut parts = Vec::with_capacity(5 * messages.len() + 2);
    for message in messages {
        let role = match message.role {
            Role::System => SYSTEM,
            Role::User => USER,
            Role::Assistant => ASSISTANT,
        };
        parts.extend([Part::Control(role), Part::Text("\n"), Part::Text(&message.content)]);
        parts.extend([Part::Control(END), Part::Text("\n")]);
    }
    match ending {
        Ending::GenerationPrompt => parts.extend([Part::Control(ASSISTANT), Part::Text("\n")]),
        Ending::OpenMessage => parts.truncate(parts.len().saturating_sub(2)),
        Ending::EndOfText => parts.push(Part::Control(END_OF_TEXT)),
    }
    parts
}
