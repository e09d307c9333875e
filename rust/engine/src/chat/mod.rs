//! Messages to prompt tokens.
//!
//! A message's content never becomes a control token. A prompt is a list of parts: control tokens, which are
//! looked up, and texts, the template's own and the contents, which are encoded as plain text. On contents
//! that hold no control token's text the ids are those of the whole rendered string.
//!
//! The formats of the family are written here, part by part ([`ChatFormat`]). A file's own Jinja template is
//! compared with them when it is loaded, and rendered only where it is none of them ([`ChatTemplate`]).

mod control;
mod ending;
mod format;
#[cfg(test)]
mod growth;
mod jinja;
mod marked;
mod message;
mod probe;
mod python;
mod source;
mod template;
mod work;

pub use format::ChatFormat;
pub use message::{Message, Role};
pub use template::ChatTemplate;
