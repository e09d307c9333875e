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
            return Err(Error::invalid_option("messages", "must have at least one message, got none"));
        };
        match (add_generation_prompt, continue_final_message) {
            (true, true) => Err(Error::invalid_option(
                "continue_final_message",
                "cannot be combined with add_generation_prompt, which begins a new message; set one of them to false",
            )),
            (false, true) if last.role != Role::Assistant => Err(Error::invalid_option(
                "continue_final_message",
                format_args!(
                    "needs a final message with the role \"assistant\", got one with the role {:?}",
                    last.role.as_str()
                ),
            )),
            (false, true) => Ok(Self::OpenMessage),
            (true, false) => Ok(Self::GenerationPrompt),
            (false, false) => Ok(Self::EndOfText),
        }
    }
}
