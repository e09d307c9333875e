//! Tokens that are matched in a text as a whole, beside the model.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use tokenizers::models::bpe::BpeTrainer;
use tokenizers::{AddedToken, AddedVocabulary, Model, NormalizerWrapper, Token};

use crate::{Error, Result};

/// A token that is matched in the text before the model sees it.
pub(super) struct Added {
    pub(super) id: u32,
    pub(super) token: AddedToken,
    /// Never comes out of plain text.
    pub(super) control: bool,
}

/// More than any vocabulary of the family has: what searches for them takes a multiple of their bytes in memory.
const MAX_BYTES: usize = 1 << 20;

/// What finds the added tokens that `keep` says.
pub(super) fn vocabulary(
    added: &[Added],
    normalizer: Option<&NormalizerWrapper>,
    keep: fn(&Added) -> bool,
) -> Result<AddedVocabulary> {
    let kept: Vec<&Added> = added.iter().filter(|added| keep(added)).collect();
    let bytes: usize = kept.iter().map(|added| added.token.content.len()).sum();
    if bytes > MAX_BYTES {
        return Err(Error::invalid_model(format!(
            "the control and user-defined tokens must have at most {MAX_BYTES} bytes in total, got {bytes}"
        )));
    }
    let ids = FixedIds(kept.iter().map(|added| (added.token.content.as_str(), added.id)).collect());
    let mut vocabulary = AddedVocabulary::new();
    vocabulary
        .add_tokens(kept.iter().map(|added| added.token.clone()), &ids, normalizer)
        .map_err(|error| Error::invalid_model(format!("the control tokens cannot be searched for: {error}")))?;
    Ok(vocabulary)
}

/// Stands where an [`AddedVocabulary`] wants a model and asks it for nothing but ids: left to itself it
/// would number added tokens that the model does not have without a gap.
struct FixedIds<'a>(HashMap<&'a str, u32>);

impl Model for FixedIds<'_> {
    type Trainer = BpeTrainer;

    fn tokenize(&self, _sequence: &str) -> tokenizers::Result<Vec<Token>> {
        Err("added tokens do not tokenize text".into())
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.0.get(token).copied()
    }

    fn id_to_token(&self, _id: u32) -> Option<String> {
        None
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        HashMap::new()
    }

    fn get_vocab_size(&self) -> usize {
        self.0.len()
    }

    fn save(&self, _folder: &Path, _prefix: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        Err("added tokens are not saved".into())
    }

    fn get_trainer(&self) -> BpeTrainer {
        BpeTrainer::default()
    }
}
