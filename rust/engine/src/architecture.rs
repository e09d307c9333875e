//! Which architectures run: the one match on `general.architecture`.

use crate::gguf::Gguf;
use crate::{Error, Result};

/// The file's architecture if it runs, or an error that says what the file is.
pub(crate) fn supported_architecture(gguf: &Gguf) -> Result<&str> {
    let path = gguf.path().display();
    match gguf.required_str("general.architecture")? {
        known @ ("phi3" | "phi2" | "llama") => {
            refuse_small(gguf)?;
            Ok(known)
        }
        "phimoe" => Err(Error::unsupported_model(format!(
            "{path}: Phi-3.5-MoE (architecture phimoe) is not supported: its 16 experts with their sparse mixer, its \
             layer norms and its biases are another model; supported are phi3, the same models converted as llama, \
             and phi2"
        ))),
        "phi3small" | "phi3-small" => Err(small(gguf)),
        other => Err(Error::unsupported_model(format!(
            "{path} has architecture {other:?}; supported are phi3 (Phi-3, Phi-3.5, Phi-4), the same models converted \
             as llama, and phi2 (phi-1.5, phi-2)"
        ))),
    }
}

/// Phi-3-small is named like its siblings, but is another model.
fn refuse_small(gguf: &Gguf) -> Result<()> {
    let name =
        gguf.optional_str("general.name")?.unwrap_or_default().to_ascii_lowercase().replace(['_', ' '], "-");
    if name.contains("phi-3-small") || name.contains("phi3-small") { Err(small(gguf)) } else { Ok(()) }
}

fn small(gguf: &Gguf) -> Error {
    Error::unsupported_model(format!(
        "{}: Phi-3-small is not supported: its attention is block-sparse, its activation gated GELU and its vocabulary \
         of another kind; Phi-3-mini and Phi-3-medium run",
        gguf.path().display()
    ))
}
