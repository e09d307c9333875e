//! The forward passes of a session, on its cache and beside it.

use tracing::debug_span;

use super::{LOG_TARGET, RopeFactors, Session};
use crate::cache::{FactorSet, Reuse};
use crate::completion::TokenLogprob;
use crate::model::Logits;
use crate::sampling::log_softmax;
use crate::{CancelToken, Result};

impl Session {
    /// Natural logarithms of the probabilities of `tokens[1..]`, each given all tokens before it.
    ///
    /// Uses a cache of its own: the session's conversation and cache stay as they are.
    pub fn score(&mut self, tokens: &[u32], cancel: &CancelToken) -> Result<Vec<f32>> {
        self.refuse_while_busy()?;
        self.check_tokens(tokens)?;
        self.check_length(tokens)?;
        let mut cache = self.model.new_cache(self.n_ctx, self.kv_dtype)?;
        cache.restart(self.factors_of(tokens.len()));
        let mut scores = Vec::with_capacity(tokens.len().saturating_sub(1));
        for chunk in tokens.chunks(self.prefill_chunk) {
            let targets = tokens.iter().skip(cache.len() + 1);
            let logits = self.model.forward(chunk, &mut cache, Logits::All, &self.compute, cancel)?; // (chunk, vocabulary)
            let rows = logits.chunks_exact(self.model.config().vocabulary_size);
            scores.extend(rows.zip(targets).map(|(row, target)| log_softmax(row)(*target)));
        }
        Ok(scores)
    }

    /// Logits of the token that follows `tokens`, one for each token of the vocabulary.
    ///
    /// The part of `tokens` that the cache holds already is not computed again.
    pub fn logits(&mut self, tokens: &[u32], cancel: &CancelToken) -> Result<Vec<f32>> {
        self.refuse_while_busy()?;
        self.check_tokens(tokens)?;
        self.check_length(tokens)?;
        self.compute(tokens, cancel)
    }

    /// The factors that all positions of a sequence of `len` tokens are rotated with.
    fn factors_of(&self, len: usize) -> FactorSet {
        let config = self.model.config();
        match self.rope_factors {
            RopeFactors::Long => FactorSet::Long,
            RopeFactors::Auto if config.has_rope_factors && len > config.original_context_length => {
                FactorSet::Long
            }
            RopeFactors::Auto | RopeFactors::Short => FactorSet::Short,
        }
    }

    /// What of the cache can stand for the beginning of `tokens`; the last token is always computed.
    pub(super) fn reuse(&self, tokens: &[u32]) -> Reuse {
        let shared = self.cached.iter().zip(tokens).take_while(|(cached, token)| cached == token).count();
        let shared = shared.min(tokens.len().saturating_sub(1));
        let is_there =
            self.factors_of(tokens.len()) == self.cache.rope_factors() && self.cache.can_truncate(shared);
        let cached = if is_there { shared } else { 0 };
        Reuse { cached, recomputed: shared - cached }
    }

    /// Brings the cache to hold exactly `tokens` and returns the logits behind the last.
    pub(super) fn compute(&mut self, tokens: &[u32], cancel: &CancelToken) -> Result<Vec<f32>> {
        let Reuse { cached: reused, recomputed } = self.reuse(tokens);
        if recomputed > 0 {
            tracing::info!(target: LOG_TARGET, recomputed, sequence = tokens.len(), "cached tokens are recomputed");
        }
        let mut rest = self.keep(tokens, reused);
        while rest.len() > self.prefill_chunk {
            let (chunk, behind) = rest.split_at(self.prefill_chunk);
            self.forward(chunk, Logits::None, cancel)?;
            rest = behind;
        }
        self.forward(rest, Logits::Last, cancel)
    }

    /// The same, all computed anew, with the log-probabilities of `tokens[1..]` and of the `top` likeliest in the place of
    /// each. The logits are those of [`compute`](Self::compute), bit by bit.
    pub(super) fn compute_scored(
        &mut self,
        tokens: &[u32],
        top: usize,
        cancel: &CancelToken,
    ) -> Result<(Vec<f32>, Vec<TokenLogprob>)> {
        let vocabulary_size = self.model.config().vocabulary_size;
        let mut scores = Vec::with_capacity(tokens.len().saturating_sub(1));
        let mut targets = tokens.iter().skip(1);
        let mut last = Vec::new();
        for chunk in self.keep(tokens, 0).chunks(self.prefill_chunk) {
            let logits = self.forward(chunk, Logits::All, cancel)?; // (chunk, vocabulary)
            let rows = logits.chunks_exact(vocabulary_size);
            last = rows.clone().next_back().unwrap_or_default().to_vec();
            // The targets second: where they are at their end, the row is that of the token to come.
            scores.extend(rows.zip(&mut targets).map(|(row, target)| TokenLogprob::of(*target, row, top)));
        }
        Ok((last, scores))
    }

    /// Lets the cache hold the first `reused` of `tokens`, and returns the others.
    fn keep<'a>(&mut self, tokens: &'a [u32], reused: usize) -> &'a [u32] {
        if reused == 0 {
            self.cache.restart(self.factors_of(tokens.len()));
        }
        self.cache.truncate(reused);
        self.cached.truncate(reused);
        tokens.get(reused..).unwrap_or_default()
    }

    fn forward(&mut self, tokens: &[u32], logits: Logits, cancel: &CancelToken) -> Result<Vec<f32>> {
        let _span = debug_span!(target: LOG_TARGET, "forward", tokens = tokens.len(), behind = self.cached.len())
            .entered();
        let logits = self.model.forward(tokens, &mut self.cache, logits, &self.compute, cancel)?;
        self.cached.extend_from_slice(tokens);
        Ok(logits)
    }
}
