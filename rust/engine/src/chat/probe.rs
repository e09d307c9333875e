//! Whether a template is one that is known.
//!
//! A template is tried on a few conversations, and what it writes is held against what the formats of the family write:
//! as they are, and as the templates in circulation that are known to be broken would write them.

use super::ending::Ending;
use super::jinja::{Jinja, pairs};
use super::{ChatFormat, Message, Role};
use crate::tokenizer::{Part, Tokenizer};
use crate::{ErrorKind, Result};

/// What is known to be wrong with some templates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Faults {
    /// System messages are dropped without a word: Phi-3 of April 2024 and Phi-3-medium.
    drops_system: bool,
    /// The assistant's header stands behind every message of the user, asked for or not: the same, and the first Phi-4.
    header_behind_user: bool,
}

impl Faults {
    const ALL: [Self; 4] = [
        Self { drops_system: false, header_behind_user: false },
        Self { drops_system: true, header_behind_user: false },
        Self { drops_system: true, header_behind_user: true },
        Self { drops_system: false, header_behind_user: true },
    ];

    fn corrections(self) -> Vec<String> {
        let mut corrections = Vec::new();
        if self.drops_system {
            corrections.push("the file's chat template drops system messages; they are kept".to_owned());
        }
        if self.header_behind_user {
            corrections.push(
                "the file's chat template begins an answer after every user message; it begins one only for a generation \
                 prompt"
                    .to_owned(),
            );
        }
        corrections
    }

    /// What a template of `format` with these faults writes.
    fn expected(self, format: ChatFormat, messages: &[Message], add_generation_prompt: bool) -> Option<String> {
        let kept: Vec<Message> = messages
            .iter()
            .filter(|message| !(self.drops_system && message.role == Role::System))
            .cloned()
            .collect();
        let ends_with_user = kept.last().is_some_and(|message| message.role == Role::User);
        let add_generation_prompt = add_generation_prompt || (self.header_behind_user && ends_with_user);
        Some(text(&format.parts(&kept, Ending::new(&kept, add_generation_prompt, false).ok()?)))
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
    let now = jiff::Zoned::now();
    for (messages, add_generation_prompt) in conversations() {
        match jinja.render(&pairs(&messages), add_generation_prompt, &now) {
            Ok(rendered) => written.push((messages, add_generation_prompt, rendered)),
            Err(error) if error.kind() == ErrorKind::InvalidModel => return Err(error),
            // A template may refuse an order of messages that it does not know.
            Err(_) => return Ok(None),
        }
    }
    let bos = tokenizer.bos_id().and_then(|id| tokenizer.token_text(id)).unwrap_or_default();
    let eos = tokenizer.eos_id().and_then(|id| tokenizer.token_text(id));
    let ends: Vec<&str> = eos.into_iter().chain(["<|endoftext|>"]).collect();
    for format in ChatFormat::ALL.into_iter().filter(|format| format.missing_control(tokenizer).is_none()) {
        for faults in Faults::ALL {
            let is_the_same = written.iter().all(|(messages, add_generation_prompt, rendered)| {
                let expected = faults.expected(format, messages, *add_generation_prompt);
                let ends = if *add_generation_prompt { &[][..] } else { ends.as_slice() };
                expected.is_some_and(|expected| plain(&expected, bos, ends) == plain(rendered, bos, ends))
            });
            if is_the_same {
                let skips_empty_system = !faults.drops_system && skips_empty_system(jinja, &now);
                let writes_bos =
                    !bos.is_empty() && written.iter().all(|(_, _, rendered)| rendered.starts_with(bos));
                let corrections = faults.corrections();
                return Ok(Some(Known { format, skips_empty_system, writes_bos, corrections }));
            }
        }
    }
    Ok(None)
}

fn skips_empty_system(jinja: &Jinja, now: &jiff::Zoned) -> bool {
    let render = |messages: &[Message]| jinja.render(&pairs(messages), true, now).ok();
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
