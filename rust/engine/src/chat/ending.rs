//! What comes after the messages.

use super::{Message, Role};
use crate::{Error, Result};

/// What comes after the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The beginning of the assistant's turn.
    GenerationPrompt,
    /// Nothing: the final message is not closed either.
    OpenMessage,
    /// The end of the text, where the template writes it.
    EndOfText,
}

impl Ending {
    pub(super) fn new(
        messages: &[Message],
        add_generation_prompt: bool,
        continue_final_message: bool,
    ) -> Result<Self> {
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
