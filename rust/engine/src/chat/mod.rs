//! Messages to prompt tokens.
//!
//! A message's content never becomes a control token. A prompt is a list of parts: control tokens, which are
//! looked up, and texts, the template's own and the contents, which are encoded as plain text. On contents
//! that hold no control token's text the ids are those of the whole rendered string.
//!
//! The formats of the family are written here, part by part ([`ChatFormat`]). A file's own Jinja template is
//! compared with them when it is loaded, and rendered only where it is none of them ([`ChatTemplate`]).

mod ending;
mod format;
mod jinja;
mod marked;
mod message;
mod probe;
mod source;
mod template;

/// What to do where a file's own chat template does not work.
const REMEDY: &str = "set chat_format to the format of the model's family, such as \"phi3\"";

pub use format::ChatFormat;
pub use message::{Message, Role};
pub use template::ChatTemplate;
