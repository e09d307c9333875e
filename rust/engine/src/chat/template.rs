//! What a model's messages are written with.

use std::borrow::Cow;
use std::path::Path;

use tracing::debug_span;

use super::control::Controls;
use super::ending::Ending;
use super::jinja::Jinja;
use super::marked::{self, Piece};
use super::probe::Known;
use super::{ChatFormat, Message, Role, probe, python, source, work};
use crate::gguf::Gguf;
use crate::tokenizer::{Part, Tokenizer};
use crate::{Error, Result};

/// What a model's messages are written with: a format of the family, or the template of the model's own file.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    kind: Kind,
    corrections: Vec<String>,
}

#[derive(Clone, Debug)]
enum Kind {
    Format { format: ChatFormat, skips_empty_system: bool, writes_bos: bool },
    Custom(Box<Custom>),
}

/// A file's own template.
#[derive(Clone, Debug)]
struct Custom {
    jinja: Jinja,
    controls: Controls,
}

impl ChatTemplate {
    /// The template of a model. `chat_format` goes round the file's own, which then is not even compiled. Otherwise it is
    /// the one beside `tokenizer_json`, or else the one in the GGUF file, or else the format that the vocabulary fits.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) for a `chat_format` that needs control tokens which the
    /// vocabulary lacks, and [`InvalidModel`](crate::ErrorKind::InvalidModel), with the line, for a template that does
    /// not compile.
    pub fn load(
        gguf: &Gguf,
        tokenizer: &Tokenizer,
        tokenizer_json: Option<&Path>,
        chat_format: Option<ChatFormat>,
    ) -> Result<Option<Self>> {
        if let Some(format) = chat_format {
            if let Some(missing) = format.missing_control(tokenizer) {
                return Err(Error::invalid_option(
                    "chat_format",
                    format_args!(
                        "must be a format whose control tokens are in the vocabulary of {} tokens, got \"{format}\", which \
                         needs {missing}; {}",
                        tokenizer.vocab_size(),
                        supported(tokenizer)
                    ),
                ));
            }
            return Ok(Some(Self::of(format)));
        }
        let Some(source) = source::find(gguf, tokenizer_json)?.filter(|source| !source.text.trim().is_empty())
        else {
            return Ok(ChatFormat::detect(tokenizer).map(Self::of));
        };
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
        let remedy = ChatFormat::remedy(tokenizer);
        let problem = |error: Error, end: &str| {
            Error::new(error.kind(), format!("{}: {error}{end}", source.place)).with_source(error)
        };
        let (bos, eos) = (text(tokenizer.bos_id()), text(tokenizer.eos_id()));
        let jinja = Jinja::compile(&source.text, bos, eos, &remedy)
            .map_err(|error| problem(error, &format!("; {remedy}")))?;
        // A rendering's error has the remedy already.
        let known = probe::known(&jinja, tokenizer).map_err(|error| problem(error, ""))?;
        Ok(Some(match known {
            Some(Known { format, skips_empty_system, writes_bos, corrections }) => {
                for correction in &corrections {
                    tracing::warn!(place = source.place, "{correction}");
                }
                Self { kind: Kind::Format { format, skips_empty_system, writes_bos }, corrections }
            }
            None => {
                let controls = Controls::new(tokenizer)?;
                Self { kind: Kind::Custom(Box::new(Custom { jinja, controls })), corrections: Vec::new() }
            }
        }))
    }

    fn of(format: ChatFormat) -> Self {
        Self {
            kind: Kind::Format { format, skips_empty_system: false, writes_bos: false },
            corrections: Vec::new(),
        }
    }

    /// A template that is rendered, whatever it writes.
    #[cfg(test)]
    pub(super) fn custom(source: &str, tokenizer: &Tokenizer) -> Result<Self> {
        let jinja = Jinja::compile(source, "", "", &ChatFormat::remedy(tokenizer))?;
        let custom = Custom { jinja, controls: Controls::new(tokenizer)? };
        Ok(Self { kind: Kind::Custom(Box::new(custom)), corrections: Vec::new() })
    }

    /// The messages that the format writes.
    fn written<'a>(&self, messages: &'a [Message]) -> Cow<'a, [Message]> {
        let is_skipped = |message: &Message| message.role == Role::System && message.content.is_empty();
        match &self.kind {
            Kind::Format { skips_empty_system: true, .. } if messages.iter().any(is_skipped) => {
                messages.iter().filter(|message| !is_skipped(message)).cloned().collect()
            }
            _ => Cow::Borrowed(messages),
        }
    }

    /// The format's name, or `"custom"` for the file's own template.
    #[must_use]
    pub fn name(&self) -> &str {
        match &self.kind {
            Kind::Format { format, .. } => format.as_str(),
            Kind::Custom(_) => "custom",
        }
    }

    /// What of the file's template was corrected, for a person.
    #[must_use]
    pub fn corrections(&self) -> &[String] {
        &self.corrections
    }

    /// The prompt as text, to look at. Encode messages with [`encode`](Self::encode), which keeps control
    /// tokens in their contents from being taken for the template's.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) for no messages, for both options at once, for a final message
    /// to continue that is not the assistant's, and for messages that the file's own template refuses or drops.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        continue_final_message: bool,
    ) -> Result<String> {
        let ending = Ending::new(messages, add_generation_prompt, continue_final_message)?;
        match &self.kind {
            Kind::Format { format, .. } => Ok(text_of(&format.parts(&self.written(messages), ending))),
            Kind::Custom(custom) => Ok(marked::text_of(&custom.pieces(messages, ending)?)),
        }
    }

    /// The prompt as token ids, with BOS first, once, where the model wants it.
    ///
    /// # Errors
    /// Those of [`render`](Self::render), and [`UnsupportedModel`](crate::ErrorKind::UnsupportedModel) where the
    /// vocabulary lacks a control token that the format needs.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        add_generation_prompt: bool,
        continue_final_message: bool,
    ) -> Result<Vec<u32>> {
        let _span = debug_span!("chat_prompt", messages = messages.len()).entered();
        let ending = Ending::new(messages, add_generation_prompt, continue_final_message)?;
        let (ids, writes_bos) = match &self.kind {
            Kind::Format { format, writes_bos, .. } => {
                (tokenizer.encode_parts(&format.parts(&self.written(messages), ending))?, *writes_bos)
            }
            Kind::Custom(custom) => {
                let pieces = custom.pieces(messages, ending)?;
                (tokenizer.encode_parts(&marked::parts(&pieces, &custom.controls))?, false)
            }
        };
        let Some(bos) = tokenizer.bos_id() else { return Ok(ids) };
        // A template of its own may have written it already, even twice.
        let written = ids.iter().take_while(|id| **id == bos).count();
        let wanted = written > 0 || writes_bos || tokenizer.add_bos();
        Ok(wanted.then_some(bos).into_iter().chain(ids.into_iter().skip(written)).collect())
    }

    /// The ids that come behind the last answer's own: what closes that turn, the new messages, and the
    /// generation prompt. Without a history the ids of a conversation's beginning.
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode), and [`InvalidOption`](crate::ErrorKind::InvalidOption) for a history that does
    /// not end with an answer, or whose answer the file's own template does not write as it is.
    pub fn encode_turn(
        &self,
        tokenizer: &Tokenizer,
        history: &[Message],
        messages: &[Message],
    ) -> Result<Vec<u32>> {
        let Some(answer) = history.last() else { return self.encode(tokenizer, messages, true, false) };
        if answer.role != Role::Assistant {
            return Err(Error::invalid_option(
                "history",
                format_args!(
                    "must end with an assistant message, got one with the role {:?}",
                    answer.role.as_str()
                ),
            ));
        }
        let _span = debug_span!("chat_prompt", messages = messages.len()).entered();
        let ending = Ending::new(messages, true, false)?;
        match &self.kind {
            Kind::Format { format, .. } => tokenizer.encode_parts(&format.turn_parts(&self.written(messages))?),
            Kind::Custom(custom) => {
                let mut whole = history.to_vec();
                let last = whole.len() - 1;
                let is_empty = answer.content.is_empty();
                // The answer is known by its place; what it says does not matter, only that it says something.
                if let Some(answer) = whole.last_mut() {
                    "answer".clone_into(&mut answer.content);
                }
                whole.extend_from_slice(messages);
                let mut pieces = custom.pieces(&whole, ending)?;
                if let [Piece::Mixed(_)] = pieces.as_slice()
                    && let Some(behind) = marked::behind(&custom.jinja, &whole, last)?
                {
                    let answer = Piece::Content { message: last, text: String::new() };
                    pieces = vec![answer, behind];
                }
                let is_answer =
                    |piece: &Piece| matches!(piece, Piece::Content { message, .. } if *message == last);
                let place = pieces.iter().rposition(is_answer);
                let around = place.and_then(|place| Some((pieces.get(..place)?, pieces.get(place + 1..)?)));
                let (before, behind) = around.ok_or_else(|| {
                    Error::invalid_option(
                        "messages",
                        format_args!(
                            "cannot continue the conversation, because the model's chat template changes the last answer; \
                             send all messages again, or {}",
                            custom.jinja.remedy()
                        ),
                    )
                })?;
                check_all_written(messages, last + 1, behind, custom.jinja.remedy())?;
                let before = marked::parts(before, &custom.controls);
                let follows_text = !is_empty || before.last().is_some_and(|part| matches!(part, Part::Text(_)));
                custom.encode_behind(tokenizer, behind, follows_text)
            }
        }
    }
}

/// Refuses new messages that the template does not write after the answer, where they would be lost.
fn check_all_written(messages: &[Message], first: usize, after: &[Piece], remedy: &str) -> Result<()> {
    /// Contents that a template may write in another order than that of the messages: each is searched in the whole text.
    const MOST_OUT_OF_ORDER: usize = 16;
    let mut written = vec![false; messages.len()];
    for piece in after {
        match piece {
            Piece::Content { message, .. } => {
                if let Some(written) = message.checked_sub(first).and_then(|index| written.get_mut(index)) {
                    *written = true;
                }
            }
            Piece::Mixed(text) => {
                let mut start = 0;
                let mut out_of_order = 0;
                for (message, written) in messages.iter().zip(&mut written) {
                    let content = python::strip(&message.content);
                    let rest = text.get(start..).unwrap_or_default();
                    work::count(content.len());
                    *written |= message.role == Role::Assistant;
                    if let Some(place) = rest.find(content) {
                        work::count(place);
                        start += place + content.len();
                        *written = true;
                    } else if !*written && out_of_order < MOST_OUT_OF_ORDER {
                        work::count(rest.len() + text.len());
                        out_of_order += 1;
                        *written = text.contains(content);
                    }
                }
            }
            Piece::Template(_) => {}
        }
    }
    let lost = messages
        .iter()
        .zip(written)
        .find(|(message, written)| !written && !python::strip(&message.content).is_empty());
    match lost {
        None => Ok(()),
        Some((message, _)) => Err(Error::invalid_option(
            "messages",
            format_args!(
                "cannot have a message with the role {:?} after an answer with the model's chat template; start a new \
                 conversation, or {remedy}",
                message.role.as_str()
            ),
        )),
    }
}

fn supported(tokenizer: &Tokenizer) -> String {
    let names: Vec<String> = ChatFormat::supported(tokenizer).map(|format| format!("\"{format}\"")).collect();
    if names.is_empty() {
        return "the vocabulary lacks the control tokens of every chat format: use a raw prompt".to_owned();
    }
    format!("the vocabulary supports {}", names.join(", "))
}

impl Custom {
    /// The ids of what stands behind an answer. Behind a text its first text begins no new one.
    fn encode_behind(&self, tokenizer: &Tokenizer, behind: &[Piece], follows_text: bool) -> Result<Vec<u32>> {
        /// Stands for the text before; it merges with nothing that templates write.
        const BEFORE: Part<'_> = Part::Text("0");
        let behind = marked::parts(behind, &self.controls);
        if follows_text {
            let before = tokenizer.encode_parts(&[BEFORE])?;
            let whole = tokenizer.encode_parts(&[&[BEFORE], behind.as_slice()].concat())?;
            if let Some(ids) = whole.strip_prefix(before.as_slice()) {
                return Ok(ids.to_vec());
            }
        }
        tokenizer.encode_parts(&behind)
    }

    fn pieces(&self, messages: &[Message], ending: Ending) -> Result<Vec<Piece>> {
        let add_generation_prompt = ending == Ending::GenerationPrompt;
        let open = (ending == Ending::OpenMessage).then(|| messages.len().saturating_sub(1));
        let mut pieces = marked::pieces(&self.jinja, &self.controls, messages, add_generation_prompt, open)?;
        let mixed = pieces.iter().any(|piece| matches!(piece, Piece::Mixed(_)));
        // The last place at which each message is written.
        let mut places = vec![None; messages.len()];
        for (place, piece) in pieces.iter().enumerate() {
            if let Piece::Content { message, .. } = piece
                && let Some(last) = places.get_mut(*message)
            {
                *last = Some(place);
            }
        }
        let is_dropped = |(message, place): (&Message, &Option<usize>)| {
            place.is_none() && message.role == Role::System && !python::strip(&message.content).is_empty()
        };
        if !mixed && messages.iter().zip(&places).any(is_dropped) {
            return Err(Error::invalid_option(
                "messages",
                format_args!(
                    "cannot have a system message, because the model's chat template drops it; remove it, put its text into \
                     a user message, or {}",
                    self.jinja.remedy()
                ),
            ));
        }
        if ending == Ending::OpenMessage {
            let last = places.last().copied().flatten().ok_or_else(|| {
                Error::invalid_option(
                    "continue_final_message",
                    format_args!(
                        "cannot be true, because the model's chat template changes the last message; set it to false, or {}",
                        self.jinja.remedy()
                    ),
                )
            })?;
            pieces.truncate(last + 1);
        }
        Ok(pieces)
    }
}

fn text_of(parts: &[Part<'_>]) -> String {
    parts.iter().map(|(Part::Control(text) | Part::Text(text))| *text).collect()
}
