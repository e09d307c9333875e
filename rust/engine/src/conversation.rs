//! What was said in a session: messages, token ids, and where each turn began.

use crate::chat::{Message, Role};
use crate::{Error, Result};

/// A conversation up to its last answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conversation {
    /// As token ids: those of the last rendered prompt, and the drawn ids of its answer, cut where the text was cut.
    tokens: Vec<u32>,
    messages: Vec<Message>,
    /// How long it was before each turn.
    turns: Vec<Length>,
}

/// How long a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Length {
    /// Not known where something older was left out since: the tokens of what is left are others.
    pub(crate) tokens: Option<usize>,
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
    /// What comes before this message of the whole conversation was left out, but for what the system said.
    first_left: usize,
}

impl Turn {
    /// Messages that continue the conversation.
    pub(crate) fn next(messages: &[Message]) -> Self {
        Self { messages: messages.to_vec(), beginning: String::new(), replaces: false, first_left: 0 }
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

    /// The same turn, where what comes before the message `first_left` of the whole conversation was left out.
    pub(crate) fn without_what_is_before(self, first_left: usize) -> Self {
        Self { first_left, ..self }
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
        let lengths = turns.iter().map(|turn| turn.messages).chain([messages.len()]);
        let known = turns.iter().filter_map(|turn| turn.tokens).chain([tokens.len()]);
        let is_sorted = lengths.is_sorted() && known.is_sorted();
        is_sorted.then_some(Self { tokens, messages, turns })
    }

    /// Takes in a turn and its answer; `tokens` are those of the whole conversation then.
    pub(crate) fn add(&mut self, turn: Turn, answer: &str, tokens: &[u32]) {
        if turn.replaces {
            *self = Self::default();
        }
        self.turns.push(Length { tokens: Some(self.tokens.len()), messages: self.messages.len() });
        let common = self.tokens.iter().zip(tokens).take_while(|(before, now)| before == now).count();
        for turn in &mut self.turns {
            // The template writes what was before in another way now.
            turn.tokens = turn.tokens.filter(|tokens| *tokens <= common);
        }
        self.messages.extend(turn.messages);
        if turn.first_left > 0 {
            self.leave_out_before(turn.first_left);
        }
        self.messages.push(Message::assistant(turn.beginning + answer));
        self.tokens = tokens.to_vec();
    }

    /// Leaves out what comes before the message `first`, but for what the system said. A turn of which nothing but that
    /// is left becomes a part of the one behind it.
    fn leave_out_before(&mut self, first: usize) {
        let is_left = |(index, message): (usize, &Message)| index >= first || message.role == Role::System;
        let left: Vec<bool> = self.messages.iter().enumerate().map(is_left).collect();
        let mut index = left.iter();
        self.messages.retain(|_| index.next().copied().unwrap_or(true));
        for turn in &mut self.turns {
            turn.messages = left.iter().take(turn.messages).filter(|is_left| **is_left).count();
            turn.tokens = (turn.messages == 0).then_some(0);
        }
        let messages = &self.messages;
        let follows_an_answer = |length: usize| {
            let before = length.checked_sub(1).and_then(|last| messages.get(last));
            before.is_some_and(|message| message.role == Role::Assistant)
        };
        self.turns.retain(|turn| turn.messages == 0 || follows_an_answer(turn.messages));
        self.turns.dedup();
    }

    /// Takes the last `turns` turns back and returns their messages. `encode` makes tokens of the messages that are left,
    /// where they are not known; the last of these is the assistant's, and stays open.
    pub(crate) fn rewind(
        &mut self,
        turns: usize,
        encode: impl FnOnce(&[Message]) -> Result<Vec<u32>>,
    ) -> Result<Vec<Message>> {
        let Some(left) = self.turns.len().checked_sub(turns) else {
            return Err(Error::invalid_option(
                "turns",
                format_args!(
                    "must be at most {}, the number of turns of the conversation, got {turns}",
                    self.turns.len()
                ),
            ));
        };
        let Some(before) = self.turns.get(left).copied() else { return Ok(Vec::new()) };
        match before.tokens {
            Some(tokens) => self.tokens.truncate(tokens),
            None => self.tokens = encode(self.messages.get(..before.messages).unwrap_or_default())?,
        }
        self.turns.truncate(left);
        Ok(self.messages.split_off(before.messages))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(turns: &[&[&str]]) -> Conversation {
        let mut conversation = Conversation::default();
        for (index, said) in turns.iter().enumerate() {
            let messages: Vec<Message> = said.iter().map(|text| message(text)).collect();
            conversation.add(Turn::next(&messages), &format!("answer {index}"), &vec![0; 10 * (index + 1)]);
        }
        conversation
    }

    fn message(text: &str) -> Message {
        if text.starts_with("rule") { Message::system(text) } else { Message::user(text) }
    }

    fn contents(messages: &[Message]) -> Vec<&str> {
        messages.iter().map(|message| message.content.as_str()).collect()
    }

    fn no_encoding(_: &[Message]) -> Result<Vec<u32>> {
        Err(Error::inference("the tokens are known"))
    }

    #[test]
    fn turns_are_left_out_with_what_is_said_next_and_the_system_stays() {
        let mut conversation = conversation(&[&["rule", "a"], &["b"], &["c"]]);
        // rule a answer b answer c answer | d
        let turn = Turn::next(&[message("d")]).without_what_is_before(5);
        conversation.add(turn, "answer 3", &[7; 25]);
        assert_eq!(contents(conversation.messages()), ["rule", "c", "answer 2", "d", "answer 3"]);
        assert_eq!(conversation.tokens(), [7; 25]);
        let again = |left: &[Message]| {
            assert_eq!(contents(left), ["rule", "c", "answer 2"]);
            Ok(vec![8; 12])
        };
        assert_eq!(contents(&conversation.clone().rewind(1, again).unwrap()), ["d", "answer 3"]);
        let mut taken_back = conversation.clone();
        assert_eq!(taken_back.rewind(2, no_encoding).unwrap().len(), 5);
        assert!(taken_back.tokens().is_empty());
        assert!(conversation.rewind(3, no_encoding).is_err());
        assert_eq!(conversation.messages().len(), 5);
    }

    #[test]
    fn a_failed_encoding_takes_nothing_back() {
        let mut conversation = conversation(&[&["a"], &["b"]]);
        conversation.add(Turn::next(&[message("c")]).without_what_is_before(2), "answer 2", &[7; 25]);
        assert!(conversation.rewind(1, no_encoding).is_err());
        assert_eq!(contents(conversation.messages()), ["b", "answer 1", "c", "answer 2"]);
        assert_eq!(conversation.tokens().len(), 25);
    }

    #[test]
    fn of_a_whole_conversation_the_oldest_is_left_out() {
        let mut conversation = conversation(&[&["x"]]);
        let said = [message("rule"), message("a"), Message::assistant("b"), message("c")];
        conversation.add(Turn::whole(&said).without_what_is_before(3), "d", &[7; 9]);
        assert_eq!(contents(conversation.messages()), ["rule", "c", "d"]);
        assert_eq!(conversation.rewind(1, no_encoding).unwrap().len(), 3);
    }
}
