//! The header of a file: everything but keys and values.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::format::MAX_HEADER_BYTES;
use super::{Place, State};
use crate::cache::FactorSet;
use crate::chat::Message;
use crate::conversation::{Conversation, Length};
use crate::fingerprint::Fingerprint;
use crate::size::size_text;
use crate::{Error, KvDtype, PhiConfig, Refusal, Result};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    model: Fingerprint,
    /// The type of keys and values.
    kv_dtype: String,
    /// Which of LongRoPE's factors the keys were rotated with.
    rope_factors: Factors,
    /// The first position whose keys and values are there: with a window, those before it were let go.
    first_position: usize,
    /// The tokens whose keys and values were computed, those that were let go included.
    cached_tokens: Vec<u32>,
    /// The conversation as token ids.
    tokens: Vec<u32>,
    messages: Vec<SavedMessage>,
    /// How long the conversation was before each turn.
    turns: Vec<SavedLength>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Factors {
    Short,
    Long,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedMessage {
    role: String,
    content: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SavedLength {
    /// Null where they are not known, since something older was left out.
    tokens: Option<usize>,
    messages: usize,
}

/// What of a session a header holds.
pub(super) struct Parts {
    pub(super) conversation: Conversation,
    pub(super) cached: Vec<u32>,
    pub(super) rope_factors: FactorSet,
}

impl Header {
    pub(super) fn new(
        model: &Fingerprint,
        state: &State<'_>,
        kv_dtype: KvDtype,
        positions: &Range<usize>,
    ) -> Self {
        let conversation = state.conversation;
        let message = |message: &Message| SavedMessage {
            role: message.role.as_str().to_owned(),
            content: message.content.clone(),
        };
        let turn = |turn: &Length| SavedLength { tokens: turn.tokens, messages: turn.messages };
        Self {
            model: model.clone(),
            kv_dtype: kv_dtype.as_str().to_owned(),
            rope_factors: match state.cache.rope_factors() {
                FactorSet::Short => Factors::Short,
                FactorSet::Long => Factors::Long,
            },
            first_position: positions.start,
            cached_tokens: state.cached.to_vec(),
            tokens: conversation.tokens().to_vec(),
            messages: conversation.messages().iter().map(message).collect(),
            turns: conversation.turns().iter().map(turn).collect(),
        }
    }

    pub(super) fn to_json(&self) -> Result<Vec<u8>> {
        let json = serde_json::to_vec(self)
            .map_err(|error| Error::inference("the conversation cannot be written as JSON").with_source(error))?;
        if json.len() > MAX_HEADER_BYTES {
            return Err(Error::conversation_file(format!(
                "the messages and tokens of the conversation take {}, but a saved conversation can have at most {} of them; \
                 save a shorter conversation",
                size_text(json.len() as u64),
                size_text(MAX_HEADER_BYTES as u64)
            )));
        }
        Ok(json)
    }

    pub(super) fn from_json(json: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json)
    }

    /// The positions whose keys and values follow.
    pub(super) fn positions(&self) -> Range<usize> {
        self.first_position.min(self.cached_tokens.len())..self.cached_tokens.len()
    }

    /// Says why a session cannot continue it.
    pub(super) fn check_fits(&self, model: &Fingerprint, config: &PhiConfig, place: Place) -> Result<()> {
        if let Some(difference) = model.difference_from(&self.model, config) {
            return Err(Error::saved_conversation(
                Refusal::OtherModel,
                format!(
                    "the conversation belongs to another model: {difference}; load it with the model that saved it"
                ),
            ));
        }
        if self.kv_dtype != place.kv_dtype.as_str() {
            return Err(Error::saved_conversation(
                Refusal::OtherKvDtype,
                format!(
                    "its kv_dtype is {:?}, but the session's is \"{}\"; load it into a session with kv_dtype set to {:?}",
                    self.kv_dtype, place.kv_dtype, self.kv_dtype
                ),
            ));
        }
        // The last token of an answer that filled the context was never computed, and has no place in it.
        let needed = self.cached_tokens.len().max(self.tokens.len().saturating_sub(1));
        if needed > place.n_ctx {
            return Err(Error::saved_conversation(
                Refusal::TooLong,
                format!(
                    "the conversation has {needed} tokens, but the session's context holds {}; load it into a session with \
                     n_ctx set to {needed} or more",
                    place.n_ctx
                ),
            ));
        }
        Ok(())
    }

    /// What is in it, unless it contradicts itself.
    pub(super) fn into_parts(self, vocabulary_size: usize) -> Option<Parts> {
        let tokens = self.tokens.iter().chain(&self.cached_tokens);
        let known = tokens.max().is_none_or(|most| (*most as usize) < vocabulary_size);
        let is_there = known && self.first_position <= self.cached_tokens.len();
        let messages =
            self.messages.into_iter().map(|saved| Some(Message::new(saved.role.parse().ok()?, saved.content)));
        let turns = self.turns.into_iter().map(|turn| Length { tokens: turn.tokens, messages: turn.messages });
        let conversation = Conversation::restored(self.tokens, messages.collect::<Option<_>>()?, turns.collect());
        Some(Parts {
            conversation: conversation.filter(|_| is_there)?,
            cached: self.cached_tokens,
            rope_factors: match self.rope_factors {
                Factors::Short => FactorSet::Short,
                Factors::Long => FactorSet::Long,
            },
        })
    }
}
