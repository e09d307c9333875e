//! Whether a template is one that is known.
//!
//! A template is tried on a few conversations, and what it writes is held against what the formats of the family write:
//! as they are, and as the templates in circulation that are known to be broken would write them.

use super::ending::Ending;
use super::jinja::{Clock, Jinja, pairs};
use super::{ChatFormat, Message, Role};
use crate::tokenizer::{Part, Tokenizer};
use crate::{ErrorKind, Result};

/// A known error of some templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SystemFault {
    /// System messages are dropped without an error: Phi-3 since late April 2024, and Phi-3-medium.
    Dropped,
    /// System messages are written as the user's: the very first Phi-3.
    WrittenAsUser,
}

/// Known errors of some templates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Faults {
    system: Option<SystemFault>,
    /// The assistant's header follows every user message, requested or not: Phi-3 of April 2024, Phi-3-medium, and the
    /// first Phi-4.
    header_after_user: bool,
}

impl Faults {
    const ALL: [Self; 6] = {
        const fn faults(system: Option<SystemFault>, header_after_user: bool) -> Faults {
            Faults { system, header_after_user }
        }
        [
            faults(None, false),
            faults(Some(SystemFault::Dropped), false),
            faults(Some(SystemFault::Dropped), true),
            faults(None, true),
            faults(Some(SystemFault::WrittenAsUser), true),
            faults(Some(SystemFault::WrittenAsUser), false),
        ]
    };

    fn corrections(self) -> Vec<String> {
        let mut corrections = Vec::new();
        match self.system {
            Some(SystemFault::Dropped) => {
                corrections.push("the file's chat template drops system messages; they are kept".to_owned());
            }
            Some(SystemFault::WrittenAsUser) => corrections.push(
                "the file's chat template writes system messages as user messages; they are written as system messages"
                    .to_owned(),
            ),
            None => {}
        }
        if self.header_after_user {
            corrections.push(
                "the file's chat template begins an answer after every user message; it begins one only for a generation \
                 prompt"
                    .to_owned(),
            );
        }
        corrections
    }

    /// The text that a template of `format` with these faults writes.
    fn expected(self, format: ChatFormat, messages: &[Message], add_generation_prompt: bool) -> Option<String> {
        let mut kept = messages.to_vec();
        match self.system {
            Some(SystemFault::Dropped) => kept.retain(|message| message.role != Role::System),
            Some(SystemFault::WrittenAsUser) => {
                for message in kept.iter_mut().filter(|message| message.role == Role::System) {
                    message.role = Role::User;
                }
            }
            None => {}
        }
        if !self.header_after_user {
            return Some(text(&format.parts(&kept, Ending::new(&kept, add_generation_prompt, false).ok()?)));
        }
        // An answer is begun after each user message, whether or not one follows.
        let begins_answer =
            |this: &Message, next: &Message| this.role == Role::User && next.role != Role::Assistant;
        let runs: Vec<&[Message]> = kept.chunk_by(|this, next| !begins_answer(this, next)).collect();
        let (last, before) = runs.split_last()?;
        let mut expected = String::new();
        for run in before {
            expected.push_str(&text(&format.parts(run, Ending::GenerationPrompt)));
        }
        let ends_with_user = last.last().is_some_and(|message| message.role == Role::User);
        let ending = Ending::new(last, add_generation_prompt || ends_with_user, false).ok()?;
        expected.push_str(&text(&format.parts(last, ending)));
        Some(expected)
    }
}

/// What is known of a template.
pub(super) struct Known {
    pub(super) format: ChatFormat,
    /// Nothing is written for a system message without text: Phi-3.5's template.
    pub(super) skips_empty_system: bool,
    /// The template writes the token that begins a text.
    pub(super) writes_bos: bool,
    pub(super) corrections: Vec<String>,
}

/// The format that a template writes, and what was corrected of it; nothing for a template that is none of the known.
///
/// # Errors
/// [`InvalidModel`](ErrorKind::InvalidModel) for a template that calls what there is not.
pub(super) fn known(jinja: &Jinja, tokenizer: &Tokenizer) -> Result<Option<Known>> {
    let mut written = Vec::new();
    let clock = Clock::default();
    for (messages, add_generation_prompt) in conversations() {
        match jinja.render(&pairs(&messages), add_generation_prompt, &clock) {
            Ok(rendered) => written.push((messages, add_generation_prompt, rendered)),
            Err(error) if error.kind() == ErrorKind::InvalidModel => return Err(error),
            // A template may refuse an order of messages that it does not know.
            Err(_) => return Ok(None),
        }
    }
    let bos = tokenizer.bos_id().and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
    let eos = tokenizer.eos_id().and_then(|id| tokenizer.token_text(id));
    let ends: Vec<&str> = eos.into_iter().chain(["<|endoftext|>"]).collect();
    for format in ChatFormat::supported(tokenizer) {
        for faults in Faults::ALL {
            let is_the_same = written.iter().all(|(messages, add_generation_prompt, rendered)| {
                let expected = faults.expected(format, messages, *add_generation_prompt);
                let ends = if *add_generation_prompt { &[][..] } else { ends.as_slice() };
                expected.is_some_and(|expected| plain(&expected, bos, ends) == plain(rendered, bos, ends))
            });
            if is_the_same {
                let skips_empty_system = faults.system.is_none() && skips_empty_system(jinja, &clock);
                let writes_bos =
                    !bos.is_empty() && written.iter().all(|(_, _, rendered)| rendered.starts_with(bos));
                let corrections = faults.corrections();
                return Ok(Some(Known { format, skips_empty_system, writes_bos, corrections }));
            }
        }
    }
    Ok(None)
}

fn skips_empty_system(jinja: &Jinja, clock: &Clock) -> bool {
    let render = |messages: &[Message]| jinja.render(&pairs(messages), true, clock).ok();
    let user = Message::user("Who are you?");
    let without = render(std::slice::from_ref(&user));
    without.is_some() && without == render(&[Message::system(""), user])
}

/// Without what stands at the edges by other rules: the token that begins a text is put there once, and how a text without
/// a generation prompt ends is the format's business.
fn plain<'a>(text: &'a str, bos: &str, ends: &[&str]) -> &'a str {
    let mut text = if bos.is_empty() { text } else { text.strip_prefix(bos).unwrap_or(text) };
    while let Some(shorter) = ends.iter().find_map(|end| text.strip_suffix(end)) {
        text = shorter;
    }
    text
}

fn conversations() -> Vec<(Vec<Message>, bool)> {
    // With white space at their edges, and with what reasoning models think: there are templates that cut these off.
    let (system, user) = (Message::system(" Be brief.\n"), Message::user("\n Who are you? "));
    let (answer, more) = (Message::assistant(" <think>Me?</think> A model.\n"), Message::user("Which one?"));
    vec![
        (vec![user.clone()], true),
        (vec![user.clone()], false),
        (vec![system.clone(), user.clone()], true),
        (vec![user.clone(), answer.clone()], false),
        (vec![user.clone(), answer.clone(), more.clone()], true),
        (vec![system, user, answer, more], true),
    ]
}

fn text(parts: &[Part<'_>]) -> String {
    parts.iter().map(|(Part::Control(text) | Part::Text(text))| *text).collect()
}
