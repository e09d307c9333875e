//! What happens where the context is full: an error, an end, or the oldest is left out.

use std::str::FromStr;

use crate::chat::{Message, Role};
use crate::loader::Phi3Model;
use crate::options::unknown_choice;
use crate::{Error, Result};

/// What to do with a prompt, or a prompt and its answer, that the context does not hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOverflow {
    /// A prompt that is too long is an error; an answer ends where the context is full.
    #[default]
    Error,
    /// A prompt that is too long ends at once, and says how long it is; an answer ends where the context is full.
    Stop,
    /// The oldest is left out, of the prompt and of the answer. Of a chat these are the oldest turns, never what the
    /// system says and never the last message; of a raw prompt the oldest tokens, never BOS.
    TruncateOldest,
}

impl OnOverflow {
    /// `"error"`, `"stop"` or `"truncate_oldest"`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Stop => "stop",
            Self::TruncateOldest => "truncate_oldest",
        }
    }
}

impl FromStr for OnOverflow {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Error, Self::Stop, Self::TruncateOldest]
            .into_iter()
            .find(|choice| choice.as_str() == text)
            .ok_or_else(|| unknown_choice("on_overflow", text))
    }
}

/// The messages that a chat's prompt is made of, of which the oldest can be left out.
///
/// What is left is rendered and tokenized as if it had been all there ever was: a session that is given these messages
/// computes the same.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    messages: Vec<Message>,
    /// Whether the last message is to be gone on with.
    is_open: bool,
    /// What comes before this message is left out, but for what the system says.
    first: usize,
}

impl Script {
    /// All messages of a chat: those of its history, and those that are said now.
    pub(crate) fn new(history: &[Message], messages: &[Message], is_open: bool) -> Self {
        Self { messages: [history, messages].concat(), is_open, first: 0 }
    }

    /// The first message that is left of those that the system did not say.
    pub(crate) fn first(&self) -> usize {
        self.first
    }

    /// The messages that are left out.
    pub(crate) fn left_out(&self) -> Vec<Message> {
        let before = self.messages.iter().take(self.first);
        before.filter(|message| message.role != Role::System).cloned().collect()
    }

    /// Leaves out the fewest of the oldest turns with which the prompt has at most `wanted` tokens; or, if nothing but the
    /// last turn would be left of it, at most `most`; or all but the last turn. Returns the prompt, or nothing if nothing
    /// was left that can be left out.
    fn shorten(&mut self, model: &Phi3Model, wanted: usize, most: usize) -> Result<Option<Vec<u32>>> {
        // A prompt can begin at each message of the user's, and the last of them is what is to be answered.
        let is_beginning = |(index, message): (usize, &Message)| {
            (index > self.first && message.role == Role::User).then_some(index)
        };
        let beginnings: Vec<usize> = self.messages.iter().enumerate().filter_map(is_beginning).collect();
        let mut found = self.fewest(model, &beginnings, wanted)?;
        if found.as_ref().map(|(first, _)| first) == beginnings.last() && wanted < most {
            found = self.fewest(model, &beginnings, most)?;
        }
        Ok(found.map(|(first, prompt)| {
            self.first = first;
            prompt
        }))
    }

    /// The first of the `beginnings` with which the prompt has at most `most` tokens, or the last of them, and the prompt.
    fn fewest(&self, model: &Phi3Model, beginnings: &[usize], most: usize) -> Result<Option<(usize, Vec<u32>)>> {
        let mut found: Option<(usize, Vec<u32>)> = None;
        let (mut low, mut high) = (0, beginnings.len());
        while low < high {
            // The last one first: it is what is left if nothing fits.
            let middle = if found.is_none() { high - 1 } else { low.midpoint(high) };
            let Some(first) = beginnings.get(middle).copied() else { break };
            let prompt = self.prompt(model, first)?;
            let fits = prompt.len() <= most;
            if fits || found.is_none() {
                found = Some((first, prompt));
            }
            if fits {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        Ok(found)
    }

    /// Whether the prompt would fit into the context without all of it that may be left out.
    pub(crate) fn fits_without_oldest(&mut self, model: &Phi3Model, n_ctx: usize) -> bool {
        let shortest = self.shorten(model, n_ctx, n_ctx).ok().flatten();
        shortest.is_some_and(|prompt| prompt.len() <= n_ctx)
    }

    fn prompt(&self, model: &Phi3Model, first: usize) -> Result<Vec<u32>> {
        let is_left = |(index, message): &(usize, &Message)| *index >= first || message.role == Role::System;
        let left: Vec<Message> =
            self.messages.iter().enumerate().filter(is_left).map(|(_, message)| message.clone()).collect();
        model.chat_template()?.encode(model.tokenizer(), &left, !self.is_open, self.is_open)
    }
}

/// Leaves out the oldest of a prompt if there is no space for an answer otherwise, and returns how many tokens that was.
/// `script` holds the messages of a chat's prompt; a raw prompt has none.
///
/// The space is what `max_tokens` can take, and a quarter of the context at most. A chat is cut down to half of the
/// context, unless that would leave nothing but its last turn: it continues, and would have to be cut and computed again
/// for each answer that follows.
pub(crate) fn shorten_prompt(
    tokens: &mut Vec<u32>,
    script: Option<&mut Script>,
    model: &Phi3Model,
    n_ctx: usize,
    max_tokens: Option<usize>,
) -> Result<usize> {
    let before = tokens.len();
    // The last token that is generated takes no place.
    let space = max_tokens.map_or(usize::MAX, |most| most.saturating_sub(1)).min(n_ctx / 4);
    if before + space <= n_ctx {
        return Ok(0);
    }
    if let Some(script) = script {
        if let Some(shorter) = script.shorten(model, n_ctx / 2, n_ctx - space)? {
            *tokens = shorter;
        }
    } else {
        *tokens = newest(model, tokens, n_ctx - space);
    }
    let left_out = before.saturating_sub(tokens.len());
    if left_out > 0 {
        tracing::info!(left_out, prompt = tokens.len(), "the oldest part of the prompt was truncated");
    }
    Ok(left_out)
}

/// What [`shorten_sequence`] did.
pub(crate) struct Shortened {
    /// How many tokens were left out.
    pub(crate) left_out: usize,
    /// Whether the answer can continue.
    pub(crate) has_space: bool,
}

/// Leaves out the oldest of a sequence that fills the context, so that at most half of it is in use, and the answer can
/// continue. The first `prompt_len` tokens are the prompt; `script` holds the messages of a chat's.
///
/// The oldest turns of a chat are left out first. Where none is left that could be, it is the oldest of the answer itself,
/// if what stays leaves it at least a quarter of the context. After an error the sequence is as it was.
pub(crate) fn shorten_sequence(
    sequence: &mut Vec<u32>,
    prompt_len: &mut usize,
    script: Option<&mut Script>,
    model: &Phi3Model,
    n_ctx: usize,
) -> Result<Shortened> {
    let before = sequence.len();
    let half = n_ctx / 2;
    if let Some(script) = script {
        let mut answer = sequence.split_off((*prompt_len).min(before));
        let most = (n_ctx - n_ctx / 4).saturating_sub(answer.len());
        let shorter = script.shorten(model, half.saturating_sub(answer.len()), most);
        match shorter {
            Ok(Some(shorter)) => *sequence = shorter,
            Ok(None) => {}
            Err(error) => {
                sequence.append(&mut answer);
                return Err(error);
            }
        }
        *prompt_len = sequence.len();
        let place = n_ctx.saturating_sub(*prompt_len);
        if place < n_ctx.div_ceil(4) {
            sequence.append(&mut answer);
            let left_out = before.saturating_sub(sequence.len());
            return Ok(Shortened { left_out, has_space: sequence.len() <= n_ctx });
        }
        if *prompt_len + answer.len() > n_ctx - n_ctx / 4 {
            answer.drain(..answer.len().saturating_sub(place / 2));
        }
        sequence.append(&mut answer);
    } else {
        *sequence = newest(model, sequence, half.max(2).min(n_ctx));
        *prompt_len = 0;
    }
    let left_out = before.saturating_sub(sequence.len());
    tracing::info!(left_out, sequence = sequence.len(), "the context is full: its oldest part was truncated");
    Ok(Shortened { left_out, has_space: left_out > 0 })
}

/// The newest of `tokens`, `most` with the token for the beginning of a text, if that is their first.
fn newest(model: &Phi3Model, tokens: &[u32], most: usize) -> Vec<u32> {
    let bos = model.tokenizer().bos_id();
    let beginning = tokens.first().copied().filter(|first| Some(*first) == bos && most > 1);
    let rest = most.saturating_sub(usize::from(beginning.is_some())).max(1);
    let left = tokens.get(tokens.len().saturating_sub(rest)..).unwrap_or_default();
    beginning.into_iter().chain(left.iter().copied()).collect()
}
