//! A template's text, with the contents of the messages told apart from what the template wrote itself.
//!
//! Everything here takes time in proportion to the text: contents may be megabytes.

use super::Message;
use super::control::Controls;
use super::jinja::{Clock, Jinja, pairs};
use super::python;
use crate::tokenizer::Part;
use crate::{Error, Result};

/// What a rendered prompt is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The template's own text.
    Template(String),
    /// The content of a message, as the template wrote it.
    Content {
        /// Which message's.
        message: usize,
        text: String,
    },
    /// A whole prompt whose contents cannot be told apart, and hold no control token's text.
    Mixed(String),
}

/// How templates change a content before they write it.
const CHANGES: [fn(&str) -> &str; 4] = [|text| text, python::strip, python::strip_start, python::strip_end];

/// Renders messages into pieces.
///
/// The template is rendered twice: with the contents, which says what the prompt is, and with marks in their place that
/// nobody can guess, which says where each content went. Where the two do not fit together, as for a template that cuts
/// something out of contents, the prompt is one piece, or an error if a content could pass for a control token.
///
/// Contents without text have no mark, since templates ask for them, but for that of the message `marked`.
pub(super) fn pieces(
    jinja: &Jinja,
    controls: &Controls,
    messages: &[Message],
    add_generation_prompt: bool,
    marked: Option<usize>,
) -> Result<Vec<Piece>> {
    let clock = Clock::default();
    let wanted = jinja.render(&pairs(messages), add_generation_prompt, &clock)?;
    let marks = Marks::new()?;
    let texts: Vec<String> = (0..messages.len()).map(|index| marks.mark(index)).collect();
    let in_their_place: Vec<(&str, &str)> = messages
        .iter()
        .zip(&texts)
        .enumerate()
        .map(|(index, (message, mark))| {
            let has_mark = !message.content.is_empty() || marked == Some(index);
            (message.role.as_str(), if has_mark { mark.as_str() } else { "" })
        })
        .collect();
    let rendered = jinja.render(&in_their_place, add_generation_prompt, &clock).ok();
    let places = rendered.as_deref().and_then(|rendered| marks.split(rendered, messages.len()));
    if let Some(pieces) = places.as_deref().and_then(|places| fit(places, messages, &wanted)) {
        return Ok(pieces);
    }
    // Refused before the prompt is searched.
    for message in messages {
        if let Some(found) = controls.first_in(&message.content) {
            return Err(unsafe_content(found, jinja.remedy()));
        }
    }
    let has_only_its_own = places.is_some_and(|places| {
        let own = places.into_iter().filter_map(|place| match place {
            Place::Template(text) => Some(text),
            Place::Message(_) => None,
        });
        own.flat_map(|text| controls.all_in(text)).eq(controls.all_in(&wanted))
    });
    // A template may cut out what stands in the middle of a content, and make a control token of the rest.
    if !has_only_its_own
        && let Some(found) = messages.iter().find_map(|message| controls.edge_in(&message.content))
    {
        return Err(unsafe_content(found, jinja.remedy()));
    }
    Ok(vec![Piece::Mixed(wanted)])
}

/// What stands behind the content of the message `answer`, where [`pieces`] could not tell the contents apart: it is
/// rendered with a mark for that one content only.
pub(super) fn behind(jinja: &Jinja, messages: &[Message], answer: usize) -> Result<Option<Piece>> {
    let marks = Marks::new()?;
    let mark = marks.mark(answer);
    let mut pairs = pairs(messages);
    if let Some((_, content)) = pairs.get_mut(answer) {
        *content = &mark;
    }
    let rendered = jinja.render(&pairs, true, &Clock::default())?;
    Ok(rendered.rsplit_once(mark.as_str()).map(|(_, behind)| Piece::Mixed(behind.to_owned())))
}

/// The pieces of a rendered prompt: each content as it is or with white space taken off, as the text demands.
fn fit(places: &[Place<'_>], messages: &[Message], wanted: &str) -> Option<Vec<Piece>> {
    /// A content of white space only fits in two ways, and many of them in more; real ones fit in one.
    const MOST_WAYS: usize = 256;
    // Ways to have read the text up to here: where it goes on, which step led there, and from which.
    let mut ways: Vec<usize> = vec![0];
    let mut steps: Vec<Vec<(usize, &str)>> = Vec::with_capacity(places.len());
    for place in places {
        let written: Vec<&str> = match place {
            Place::Template(text) => vec![text],
            Place::Message(message) => {
                let content = &messages.get(*message)?.content;
                CHANGES.iter().map(|change| change(content)).collect()
            }
        };
        let mut next: Vec<usize> = Vec::new();
        let mut step = Vec::new();
        for (from, start) in ways.iter().enumerate() {
            for text in &written {
                let end = start + text.len();
                if wanted.get(*start..).is_some_and(|rest| rest.starts_with(text)) && !next.contains(&end) {
                    next.push(end);
                    step.push((from, *text));
                }
            }
        }
        if next.is_empty() || next.len() > MOST_WAYS {
            return None;
        }
        ways = next;
        steps.push(step);
    }
    let mut way = ways.iter().position(|end| *end == wanted.len())?;
    let mut pieces = Vec::with_capacity(places.len());
    for (place, step) in places.iter().zip(&steps).rev() {
        let (from, text) = step.get(way)?;
        pieces.push(match place {
            Place::Template(_) => Piece::Template((*text).to_owned()),
            Place::Message(message) => Piece::Content { message: *message, text: (*text).to_owned() },
        });
        way = *from;
    }
    pieces.reverse();
    Some(pieces)
}

fn unsafe_content(found: &str, remedy: &str) -> Error {
    Error::invalid_option(
        "messages",
        format_args!(
            "must not contain {found:?}, because the model's chat template rewrites contents and could make a control token \
             of it; remove it, or {remedy}"
        ),
    )
}

/// The prompt as text.
pub(super) fn text_of(pieces: &[Piece]) -> String {
    pieces
        .iter()
        .map(|piece| match piece {
            Piece::Template(text) | Piece::Content { text, .. } | Piece::Mixed(text) => text.as_str(),
        })
        .collect()
}

/// The prompt as control tokens and texts.
pub(super) fn parts<'a>(pieces: &'a [Piece], controls: &Controls) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Content { text, .. } => parts.push(Part::Text(text)),
            Piece::Template(text) | Piece::Mixed(text) => controls.split(text, &mut parts),
        }
    }
    parts.retain(|part| !matches!(part, Part::Text("")));
    parts
}

/// Marks for contents: private-use characters around a number that is drawn anew each time.
struct Marks(String);

enum Place<'a> {
    Template(&'a str),
    Message(usize),
}

impl Marks {
    const OPEN: char = '\u{E000}';
    const CLOSE: char = '\u{E001}';

    fn new() -> Result<Self> {
        let nonce = getrandom::u64().map_err(|error| {
            Error::inference(format!("the system gives no random number: {error}")).with_source(error)
        })?;
        Ok(Self(format!("{}{nonce:016x}.", Self::OPEN)))
    }

    fn mark(&self, message: usize) -> String {
        format!("{}{message}{}", self.0, Self::CLOSE)
    }

    /// The template's text and the marks in it; nothing if a mark came out damaged.
    fn split<'a>(&self, rendered: &'a str, messages: usize) -> Option<Vec<Place<'a>>> {
        let mut places = Vec::new();
        let mut rest = rendered;
        while let Some((text, behind)) = rest.split_once(self.0.as_str()) {
            let (number, behind) = behind.split_once(Self::CLOSE)?;
            let message = number.parse().ok().filter(|message| *message < messages)?;
            places.extend([Place::Template(text), Place::Message(message)]);
            rest = behind;
        }
        places.push(Place::Template(rest));
        Some(places)
    }
}
