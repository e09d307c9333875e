//! One step of a generation: the forward pass, the logits, the draw.

use std::sync::Weak;
use std::time::Instant;

use tracing::debug_span;
use tracing::span::EnteredSpan;

use super::{LOG_TARGET, Session};
use crate::completion::{Chunk, Completion};
use crate::generation::Generation;
use crate::{CancelToken, Error, ErrorKind, Result};

/// What the first half of a step came to.
#[derive(Clone, Debug, PartialEq)]
pub enum HalfStep {
    /// The logits are there, in [`Generation::logits_mut`]; [`Session::finish_step`] draws from them.
    Logits,
    /// There is nothing to draw: this is what the whole step gives.
    Whole(Option<Chunk>),
}

impl Session {
    /// Computes the next token. The first step computes the prompt; where the prompt is echoed, one before it gives its
    /// text.
    ///
    /// Returns `None` when the generation has ended; its [`completion`](Generation::completion) is whole then.
    ///
    /// # Errors
    /// [`Cancelled`](crate::ErrorKind::Cancelled) once `cancel` is set. The generation can be continued with another
    /// step, or dropped; either way the session stays usable.
    pub fn step(&mut self, generation: &mut Generation, cancel: &CancelToken) -> Result<Option<Chunk>> {
        let _span = step_span(generation);
        match self.first_half(generation, cancel)? {
            HalfStep::Logits => self.finish_step(generation, cancel),
            HalfStep::Whole(chunk) => Ok(chunk),
        }
    }

    /// The first half of a [`step`](Self::step), for a caller who edits the logits before a token is drawn from them: the
    /// forward pass. Between the halves the session is busy with the generation, as between two steps.
    ///
    /// # Errors
    /// As for [`step`](Self::step).
    pub fn begin_step(&mut self, generation: &mut Generation, cancel: &CancelToken) -> Result<HalfStep> {
        let _span = step_span(generation);
        self.first_half(generation, cancel)
    }

    fn first_half(&mut self, generation: &mut Generation, cancel: &CancelToken) -> Result<HalfStep> {
        if generation.is_finished() {
            return Ok(HalfStep::Whole(None));
        }
        self.check_ticket(generation)?;
        let limited = cancel.until(generation.mark_started());
        if let Some(prompt) = generation.give_echo() {
            return Ok(HalfStep::Whole(Some(prompt)));
        }
        let is_full = generation.has_tokens() && generation.sequence.len() > self.n_ctx;
        let last = if is_full && !self.make_room(generation)? {
            generation.context_is_full()
        } else {
            match self.extend(generation, &limited) {
                Ok(logits) => {
                    generation.take_logits(logits)?;
                    return Ok(HalfStep::Logits);
                }
                Err(error) if error.kind() == ErrorKind::Cancelled && !cancel.is_cancelled() => {
                    generation.time_is_over()
                }
                Err(error) => return Err(error),
            }
        };
        self.commit_unless_later(generation);
        Ok(HalfStep::Whole(last))
    }

    /// The second half of a [`step`](Self::step): the draw.
    ///
    /// # Errors
    /// As for [`step`](Self::step), and [`InvalidOption`](crate::ErrorKind::InvalidOption) where edited logits are not
    /// numbers, or leave no token.
    pub fn finish_step(&mut self, generation: &mut Generation, cancel: &CancelToken) -> Result<Option<Chunk>> {
        self.check_ticket(generation)?;
        cancel.check().inspect_err(|_| generation.drop_logits())?;
        let chunk = generation.draw()?;
        self.commit_unless_later(generation);
        Ok(chunk)
    }

    /// Steps until the generation has ended.
    pub fn run(&mut self, generation: &mut Generation, cancel: &CancelToken) -> Result<()> {
        while !generation.is_finished() {
            self.step(generation, cancel)?;
        }
        Ok(())
    }

    /// Lets go of a generation that has ended; one that has not is left as it is. A chat's turn becomes part of the
    /// conversation if its answer ended by itself or at its length; the turns that were left out for it leave the
    /// conversation then. [`step`](Self::step) does this, unless the generation
    /// [commits later](Generation::commit_later).
    pub fn commit(&mut self, generation: &mut Generation) {
        if !generation.has_ticket(&self.active) || !generation.is_finished() {
            return;
        }
        if let Some(turn) = generation.said() {
            let tokens = generation.said_tokens(self.model.tokenizer());
            self.conversation.add(turn, generation.answer(), &tokens);
        }
        self.active = Weak::new();
    }

    fn commit_unless_later(&mut self, generation: &mut Generation) {
        let Completion { finish_reason, usage, timings, .. } = generation.completion();
        if let Some(finish_reason) = finish_reason {
            tracing::debug!(
                target: LOG_TARGET,
                %finish_reason,
                prompt_tokens = usage.prompt_tokens,
                cached_tokens = usage.cached_tokens,
                completion_tokens = usage.completion_tokens,
                prefill = ?timings.prefill,
                decode = ?timings.decode,
                "generation ended"
            );
        }
        if !generation.commits_later() {
            self.commit(generation);
        }
    }

    fn check_ticket(&self, generation: &Generation) -> Result<()> {
        if generation.has_ticket(&self.active) {
            return Ok(());
        }
        Err(Error::session_busy(
            "the session was reset or has begun another generation, or this generation belongs to another session; start \
             a new one",
        ))
    }

    /// Leaves the oldest of a generation out of the full context, if it is to go on. What is left moves to the front, so
    /// it is computed again.
    fn make_room(&mut self, generation: &mut Generation) -> Result<bool> {
        let is_roomy = generation.leave_out_oldest(&self.model, self.n_ctx)?;
        if is_roomy {
            let there = self.reuse(&generation.sequence);
            let moved = generation.sequence.len().saturating_sub(1 + there.cached + there.recomputed);
            generation.add_recomputed(moved);
        }
        Ok(is_roomy)
    }

    /// Computes what is new of a generation's sequence and returns the logits behind it: the prompt in the first step,
    /// one token in each that follows, and everything again where LongRoPE's factors change or the oldest was left out.
    fn extend(&mut self, generation: &mut Generation, cancel: &CancelToken) -> Result<Vec<f32>> {
        let started = Instant::now();
        let sequence = std::mem::take(&mut generation.sequence);
        let scored = generation.wants_prompt_logprobs();
        let mut reuse = self.reuse(&sequence);
        let logits = match scored {
            None => self.compute(&sequence, cancel),
            Some(top) => {
                reuse.cached = 0;
                self.compute_scored(&sequence, top, cancel).map(|(logits, scores)| {
                    generation.set_prompt_logprobs(scores);
                    logits
                })
            }
        };
        let computed = sequence.len().min(self.cached.len()).saturating_sub(reuse.cached);
        let is_decode = generation.has_tokens() && reuse.cached + 1 == sequence.len();
        if is_decode && logits.is_ok() {
            generation.add_decode_time(started.elapsed());
        } else if !is_decode {
            generation.add_prefill_time(computed, started.elapsed());
        }
        if generation.has_tokens() {
            generation.add_recomputed(reuse.recomputed);
        }
        generation.sequence = sequence;
        logits
    }
}

/// A step in a trace: an ended generation has none.
fn step_span(generation: &Generation) -> Option<EnteredSpan> {
    let span = || if generation.has_tokens() { debug_span!("decode") } else { debug_span!("prefill") };
    (!generation.is_finished()).then(|| span().entered())
}
