//! What was said in a session: messages, token ids, and where each turn began.

use crate::chat::Message;
use crate::{Error, Result};

/// A conversation up to its last answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conversation {
    /// As token ids; they are never tokenized again.
    tokens: Vec<u32>,
    messages: Vec<Message>,
    /// How long it was before each turn.
    turns: Vec<Length>,
}

/// How long a conversation is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Length {
    pub(crate) tokens: usize,
    pub(crate) messages: usize,
}

/// What a chat was begun with; it is said when its answer has ended.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    messages: Vec<Message>,
    /// What the answer begins with; it is not generated.
    beginning: String,
    /// Whether the messages are a whole conversation, in the place of the one that was there.
    replaces: bool,
}

impl Turn {
    /// Messages that continue the conversation.
    pub(crate) fn next(messages: &[Message]) -> Self {
        Self { messages: messages.to_vec(), beginning: String::new(), replaces: false }
    }

    /// A whole conversation.
    pub(crate) fn whole(messages: &[Message]) -> Self {
        Self { replaces: true, ..Self::next(messages) }
    }

    /// A whole conversation whose last message is the beginning of the answer.
    pub(crate) fn rest_of(messages: &[Message]) -> Self {
        match messages.split_last() {
            Some((last, before)) => Self { beginning: last.content.clone(), ..Self::whole(before) },
            None => Self::whole(messages),
        }
    }
}

impl Conversation {
    pub(crate) fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    pub(crate) fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// How long it was before each turn.
    pub(crate) fn turns(&self) -> &[Length] {
        &self.turns
    }

    /// A conversation of what another one was made of; `None` if its turns are not in their order, or reach beyond it.
    pub(crate) fn restored(tokens: Vec<u32>, messages: Vec<Message>, turns: Vec<Length>) -> Option<Self> {
        let end = Length { tokens: tokens.len(), messages: messages.len() };
        let is_sorted = turns
            .iter()
            .zip(turns.iter().skip(1).chain([&end]))
            .all(|(turn, next)| turn.tokens <= next.tokens && turn.messages <= next.messages);
        is_sorted.then_some(Self { tokens, messages, turns })
    }

    /// Takes in a turn and its answer; `tokens` are those of the whole conversation then.
    pub(crate) fn add(&mut self, turn: Turn, answer: &str, tokens: &[u32]) {
        if turn.replaces {
            *self = Self::default();
        }
        self.turns.push(Length { tokens: self.tokens.len(), messages: self.messages.len() });
        self.messages.extend(turn.messages);
        self.messages.push(Message::assistant(turn.beginning + answer));
        self.tokens = tokens.to_vec();
    }

    /// Takes the last `turns` turns back and returns their messages.
    pub(crate) fn rewind(&mut self, turns: usize) -> Result<Vec<Message>> {
        let Some(left) = self.turns.len().checked_sub(turns) else {
            return Err(Error::invalid_option(format!(
                "turns: expected at most {}, the turns of this conversation, found {turns}",
                self.turns.len()
            )));
        };
        let Some(before) = self.turns.get(left).copied() else { return Ok(Vec::new()) };
        self.turns.truncate(left);
        self.tokens.truncate(before.tokens);
        Ok(self.messages.split_off(before.messages))
    }
}
