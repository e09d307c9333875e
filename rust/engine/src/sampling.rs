//! From logits to a token: ordered stages, then one seeded draw.
//!
//! The order is: padding masked, penalties, bias, what the caller does to them, temperature, top-k, typical-p, top-p, min-p.
//! Every stage lowers or removes logits and knows nothing of the others; Candle's `LogitsProcessor` draws from what is left.

use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};
use candle_transformers::utils::apply_repeat_penalty;

use crate::{Error, Result, options};

/// A temperature below this is greedy, as in Candle's `LogitsProcessor`.
const GREEDY_BELOW: f64 = 1e-7;

/// How tokens are chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingOptions {
    /// Divides the logits; 0 takes the most likely token always.
    pub temperature: f64,
    /// Keep only the `k` most likely tokens.
    pub top_k: Option<usize>,
    /// Keep only the tokens whose surprise is nearest to the expected one, the fewest whose probabilities sum to this
    /// (locally typical sampling, arXiv:2202.00666).
    pub typical_p: Option<f64>,
    /// Keep only the fewest tokens whose probabilities sum to this (nucleus sampling, arXiv:1904.09751).
    pub top_p: Option<f64>,
    /// Keep only tokens at least this times as likely as the most likely one (arXiv:2407.01082).
    pub min_p: Option<f64>,
    /// Divides positive and multiplies negative logits of tokens generated lately; 1 is off (arXiv:1909.05858).
    pub repetition_penalty: f32,
    /// How many of the last generated tokens the three penalties look at; 0 is none.
    pub repeat_last_n: usize,
    /// Subtracted from the logits of tokens generated lately; 0 is off.
    pub presence_penalty: f32,
    /// Subtracted from the logits of tokens generated lately, once for each time; 0 is off.
    pub frequency_penalty: f32,
    /// Added to single tokens' logits; minus infinity bans a token.
    pub logit_bias: Vec<(u32, f32)>,
    /// Seed of the draw; `None` takes a random one, which the completion reports.
    pub seed: Option<u64>,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: None,
            typical_p: None,
            top_p: None,
            min_p: None,
            repetition_penalty: 1.0,
            repeat_last_n: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

impl SamplingOptions {
    /// The most likely token always.
    #[must_use]
    pub fn greedy() -> Self {
        Self { temperature: 0.0, ..Self::default() }
    }

    /// Checks every option against its range.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) naming the option, its range and what was found.
    pub fn validate(&self) -> Result<()> {
        options::check("temperature", self.temperature)?;
        for (name, count) in [("top_k", self.top_k), ("repeat_last_n", Some(self.repeat_last_n))] {
            count.map_or(Ok(()), |count| options::check(name, count))?;
        }
        for (name, probability) in [("typical_p", self.typical_p), ("top_p", self.top_p), ("min_p", self.min_p)] {
            probability.map_or(Ok(()), |probability| options::check(name, probability))?;
        }
        options::check("repetition_penalty", self.repetition_penalty)?;
        options::check("presence_penalty", self.presence_penalty)?;
        options::check("frequency_penalty", self.frequency_penalty)?;
        for (token, bias) in &self.logit_bias {
            options::check_at("logit_bias", *bias, format_args!(" for token {token}"))?;
        }
        Ok(())
    }

    fn is_greedy(&self) -> bool {
        self.temperature < GREEDY_BELOW
    }
}

/// Draws the tokens of one generation.
pub(crate) struct Sampler {
    options: SamplingOptions,
    processor: LogitsProcessor,
    seed: u64,
    masked_ids: Vec<u32>,
}

impl Sampler {
    /// A sampler that never draws `masked_ids`.
    pub(crate) fn new(options: &SamplingOptions, masked_ids: Vec<u32>) -> Result<Self> {
        let seed = options.seed.map_or_else(random_seed, Ok)?;
        let sampling = if options.is_greedy() { Sampling::ArgMax } else { Sampling::All { temperature: 1.0 } };
        let processor = LogitsProcessor::from_sampling(seed, sampling);
        Ok(Self { options: options.clone(), processor, seed, masked_ids })
    }

    /// The seed that was given or chosen.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// The first stages: `logits`, one for each token of the vocabulary, with penalties and bias. Those of `forbidden`
    /// tokens, and of those that are never drawn, are minus infinity.
    pub(crate) fn adjusted(&self, logits: &[f32], generated: &[u32], forbidden: &[u32]) -> Result<Vec<f32>> {
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err(Error::inference(
                "the model computed NaN logits: the file is damaged, or a value overflowed; download it again, or set \
                 device to \"cpu\"",
            ));
        }
        let recent =
            generated.get(generated.len().saturating_sub(self.options.repeat_last_n)..).unwrap_or_default();
        let mut logits = self.repetition_penalty(logits, recent)?;
        self.mask(&mut logits, forbidden);
        self.presence_and_frequency_penalties(&mut logits, recent);
        for (token, bias) in &self.options.logit_bias {
            if let Some(logit) = logits.get_mut(*token as usize) {
                *logit += bias;
            }
        }
        Ok(logits)
    }

    /// What is left of logits that somebody edited: tokens that cannot be drawn stay so.
    pub(crate) fn check_edited(&self, logits: &mut [f32], forbidden: &[u32]) -> Result<()> {
        let is_none = |logit: &f32| logit.is_nan() || *logit == f32::INFINITY;
        if let Some((token, logit)) = logits.iter().enumerate().find(|(_, logit)| is_none(logit)) {
            return Err(Error::invalid_option(
                "logits_processor",
                format_args!(
                    "must leave finite logits, or -inf to forbid a token, got {logit} for token {token}; to force a token, \
                     set the others to -inf"
                ),
            ));
        }
        self.mask(logits, forbidden);
        if !logits.iter().any(|logit| logit.is_finite()) {
            return Err(Error::invalid_option(
                "logits_processor",
                "must leave at least one allowed token, got -inf for all of them; leave one finite logit, or stop the \
                 generation",
            ));
        }
        Ok(())
    }

    /// The stages after that: temperature, top-k, typical-p, top-p, min-p, and the draw.
    pub(crate) fn draw(&mut self, mut logits: Vec<f32>) -> Result<u32> {
        if !self.options.is_greedy() {
            let scale = (1.0 / self.options.temperature) as f32;
            // What is finite stays so, however large somebody made it: minus infinity alone forbids a token.
            for logit in logits.iter_mut().filter(|logit| logit.is_finite()) {
                *logit = (*logit * scale).clamp(f32::MIN, f32::MAX);
            }
            self.options.top_k.into_iter().for_each(|k| keep_top_k(&mut logits, k));
            self.options.typical_p.into_iter().for_each(|p| keep_typical(&mut logits, p));
            self.options.top_p.into_iter().for_each(|p| keep_top_p(&mut logits, p));
            self.options.min_p.into_iter().for_each(|p| keep_min_p(&mut logits, p));
        }
        if !logits.iter().any(|logit| logit.is_finite()) {
            return Err(Error::invalid_input(
                "every token is forbidden, by logit_bias or, for the end tokens, by min_tokens; allow at least one",
            ));
        }
        let len = logits.len();
        Ok(self.processor.sample(&Tensor::from_vec(logits, len, &Device::Cpu)?)?)
    }

    fn mask(&self, logits: &mut [f32], forbidden: &[u32]) {
        set_all(logits, &self.masked_ids, f32::NEG_INFINITY);
        set_all(logits, forbidden, f32::NEG_INFINITY);
    }

    fn repetition_penalty(&self, logits: &[f32], recent: &[u32]) -> Result<Vec<f32>> {
        if self.options.repetition_penalty == 1.0 || recent.is_empty() {
            return Ok(logits.to_vec());
        }
        let logits = Tensor::from_slice(logits, logits.len(), &Device::Cpu)?;
        Ok(apply_repeat_penalty(&logits, self.options.repetition_penalty, recent)?.to_vec1()?)
    }

    fn presence_and_frequency_penalties(&self, logits: &mut [f32], recent: &[u32]) {
        let SamplingOptions { presence_penalty, frequency_penalty, .. } = self.options;
        if presence_penalty == 0.0 && frequency_penalty == 0.0 {
            return;
        }
        for (index, token) in recent.iter().enumerate() {
            let Some(logit) = logits.get_mut(*token as usize) else { continue };
            *logit -= frequency_penalty;
            if !recent.iter().take(index).any(|earlier| earlier == token) {
                *logit -= presence_penalty;
            }
        }
    }
}

/// A random seed of 32 bits: one that a person can type again.
fn random_seed() -> Result<u64> {
    getrandom::u32().map(u64::from).map_err(|error| {
        Error::inference(format!("the system cannot give a random seed: {error}; set seed")).with_source(error)
    })
}

fn set_all(logits: &mut [f32], ids: &[u32], value: f32) {
    for id in ids {
        if let Some(logit) = logits.get_mut(*id as usize) {
            *logit = value;
        }
    }
}

/// Token ids from the most likely to the least; of two that are equally likely the lower id first.
fn by_likelihood(logits: &[f32]) -> impl Fn(&u32, &u32) -> std::cmp::Ordering {
    let likelihood = |id: u32| logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY);
    move |a, b| likelihood(*b).total_cmp(&likelihood(*a)).then(a.cmp(b))
}

fn keep_top_k(logits: &mut [f32], k: usize) {
    if k >= logits.len() {
        return;
    }
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let (_, _, dropped) = ids.select_nth_unstable_by(k - 1, by_likelihood(logits));
    set_all(logits, dropped, f32::NEG_INFINITY);
}

/// Keeps the tokens whose surprise, `-ln p`, is nearest to the expected surprise of the distribution, its entropy: the fewest
/// whose probabilities sum to `mass`, and those that are as near as the last of them.
fn keep_typical(logits: &mut [f32], mass: f64) {
    if mass >= 1.0 {
        return;
    }
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    let log_probabilities: Vec<f64> = logits.iter().map(|logit| f64::from(logit - max) - sum.ln()).collect();
    let is_possible = |log: &&f64| log.is_finite();
    let entropy: f64 = log_probabilities.iter().filter(is_possible).map(|log| -log * log.exp()).sum();
    let mut by_distance: Vec<(f64, f64)> =
        log_probabilities.iter().filter(is_possible).map(|log| ((-log - entropy).abs(), log.exp())).collect();
    by_distance.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut covered = 0.0;
    let farthest = by_distance.iter().find_map(|(distance, probability)| {
        covered += probability;
        (covered >= mass).then_some(*distance)
    });
    // With rounding, all of them may sum to less.
    let farthest = farthest.unwrap_or(f64::INFINITY);
    for (logit, log) in logits.iter_mut().zip(log_probabilities) {
        if (-log - entropy).abs() > farthest {
            *logit = f32::NEG_INFINITY;
        }
    }
}

fn keep_top_p(logits: &mut [f32], p: f64) {
    if p >= 1.0 {
        return;
    }
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_unstable_by(by_likelihood(logits));
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |logit: f32| f64::from(logit - max).exp();
    let total: f64 = logits.iter().map(|logit| weight(*logit)).sum();
    let mut sum = 0.0;
    let kept = ids.iter().take_while(|id| {
        let needed = sum < p * total;
        sum += logits.get(**id as usize).map_or(0.0, |logit| weight(*logit));
        needed
    });
    let kept = kept.count();
    set_all(logits, ids.get(kept..).unwrap_or_default(), f32::NEG_INFINITY);
}

fn keep_min_p(logits: &mut [f32], min_p: f64) {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let threshold = f64::from(max) + min_p.ln();
    for logit in logits.iter_mut().filter(|logit| f64::from(**logit) < threshold) {
        *logit = f32::NEG_INFINITY;
    }
}

/// Natural logarithms of the probabilities that `logits` stand for.
pub(crate) fn log_softmax(logits: &[f32]) -> impl Fn(u32) -> f32 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - max).exp()).sum();
    let log_sum = f64::from(max) + sum.ln();
    move |id| logits.get(id as usize).map_or(f32::NEG_INFINITY, |logit| (f64::from(*logit) - log_sum) as f32)
}

/// The `count` most likely tokens, most likely first.
pub(crate) fn most_likely(logits: &[f32], count: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    if count < ids.len() && count > 0 {
        ids.select_nth_unstable_by(count - 1, by_likelihood(logits));
    }
    ids.truncate(count);
    ids.sort_unstable_by(by_likelihood(logits));
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, -1.0, 0.0];

    fn sample(sampler: &mut Sampler, logits: &[f32], generated: &[u32]) -> Result<u32> {
        let adjusted = sampler.adjusted(logits, generated, &[])?;
        sampler.draw(adjusted)
    }

    fn drawn(options: SamplingOptions, masked: &[u32], generated: &[u32]) -> Vec<u32> {
        let mut seen: Vec<u32> = (0..400)
            .map(|seed| {
                let options = SamplingOptions { seed: Some(seed), ..options.clone() };
                sample(&mut Sampler::new(&options, masked.to_vec()).unwrap(), &LOGITS, generated).unwrap()
            })
            .collect();
        seen.sort_unstable();
        seen.dedup();
        seen
    }

    #[test]
    fn greedy_takes_the_most_likely_token_that_is_not_masked() {
        assert_eq!(drawn(SamplingOptions::greedy(), &[], &[]), [1]);
        assert_eq!(drawn(SamplingOptions::greedy(), &[1], &[]), [2]);
    }

    #[test]
    fn each_filter_keeps_what_it_says() {
        let default = SamplingOptions::default();
        assert_eq!(drawn(default.clone(), &[], &[]), [0, 1, 2, 3, 4]);
        assert_eq!(drawn(SamplingOptions { top_k: Some(2), ..default.clone() }, &[], &[]), [1, 2]);
        // Probabilities are 0.64, 0.23, 0.09, 0.03, 0.01.
        assert_eq!(drawn(SamplingOptions { top_p: Some(0.63), ..default.clone() }, &[], &[]), [1]);
        assert_eq!(drawn(SamplingOptions { top_p: Some(0.65), ..default.clone() }, &[], &[]), [1, 2]);
        assert_eq!(drawn(SamplingOptions { min_p: Some(0.3), ..default.clone() }, &[], &[]), [1, 2]);
        // The entropy is 1.00; the distances of tokens 2, 1 and 0 to it are 0.45, 0.55 and 1.45.
        assert_eq!(drawn(SamplingOptions { typical_p: Some(0.2), ..default.clone() }, &[], &[]), [2]);
        assert_eq!(drawn(SamplingOptions { typical_p: Some(0.5), ..default.clone() }, &[], &[]), [1, 2]);
        assert_eq!(drawn(SamplingOptions { typical_p: Some(0.9), ..default.clone() }, &[], &[]), [0, 1, 2]);
        assert_eq!(drawn(SamplingOptions { typical_p: Some(1.0), ..default.clone() }, &[], &[]), [0, 1, 2, 3, 4]);
        // Of the two that top-k leaves, the second is the nearer one.
        let both = SamplingOptions { top_k: Some(2), typical_p: Some(0.2), ..default.clone() };
        assert_eq!(drawn(both, &[], &[]), [1]);
        assert_eq!(drawn(SamplingOptions { min_p: Some(1.0), ..default.clone() }, &[], &[]), [1]);
        assert_eq!(drawn(SamplingOptions { min_p: Some(0.0), ..default }, &[], &[]), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn typical_keeps_what_is_as_near_as_the_last_and_forbids_nothing_else() {
        let mut equal = [1.0; 4];
        keep_typical(&mut equal, 0.3);
        assert_eq!(equal, [1.0; 4]);
        let nothing = f32::NEG_INFINITY;
        let mut one = [nothing, 2.0, nothing];
        keep_typical(&mut one, 0.9);
        assert_eq!(one, [nothing, 2.0, nothing]);
    }

    #[test]
    fn penalties_look_at_the_last_generated_tokens_only() {
        let greedy = SamplingOptions::greedy();
        let repetition = SamplingOptions { repetition_penalty: 2.0, ..greedy.clone() };
        assert_eq!(drawn(repetition.clone(), &[], &[1]), [2]);
        assert_eq!(drawn(SamplingOptions { repeat_last_n: 1, ..repetition.clone() }, &[], &[1, 4]), [1]);
        assert_eq!(drawn(SamplingOptions { repeat_last_n: 0, ..repetition }, &[], &[1]), [1]);
        assert_eq!(drawn(SamplingOptions { presence_penalty: 1.5, ..greedy.clone() }, &[], &[1, 1]), [2]);
        assert_eq!(drawn(SamplingOptions { presence_penalty: 0.6, ..greedy.clone() }, &[], &[1, 1]), [1]);
        assert_eq!(drawn(SamplingOptions { frequency_penalty: 0.6, ..greedy.clone() }, &[], &[1]), [1]);
        assert_eq!(drawn(SamplingOptions { frequency_penalty: 0.6, ..greedy }, &[], &[1, 1]), [2]);
    }

    #[test]
    fn bias_moves_and_bans_tokens() {
        let biased = |bias: Vec<(u32, f32)>| SamplingOptions { logit_bias: bias, ..SamplingOptions::greedy() };
        assert_eq!(drawn(biased(vec![(3, 5.0)]), &[], &[]), [3]);
        assert_eq!(drawn(biased(vec![(1, f32::NEG_INFINITY)]), &[], &[]), [2]);
        let all = biased((0..5).map(|id| (id, f32::NEG_INFINITY)).collect());
        let error = sample(&mut Sampler::new(&all, Vec::new()).unwrap(), &LOGITS, &[]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidOption);
    }

    #[test]
    fn the_same_seed_draws_the_same_tokens() {
        let draw = |seed| {
            let options = SamplingOptions { seed: Some(seed), ..SamplingOptions::default() };
            let mut sampler = Sampler::new(&options, Vec::new()).unwrap();
            (0..50).map(|_| sample(&mut sampler, &LOGITS, &[]).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn nan_logits_are_an_error() {
        let mut sampler = Sampler::new(&SamplingOptions::greedy(), Vec::new()).unwrap();
        assert_eq!(sample(&mut sampler, &[0.0, f32::NAN], &[]).unwrap_err().kind(), ErrorKind::Inference);
    }

    #[test]
    fn edited_logits_are_numbers_and_leave_a_token() {
        let sampler = Sampler::new(&SamplingOptions::greedy(), vec![4]).unwrap();
        let nothing = f32::NEG_INFINITY;
        for (edited, value) in [
            ([0.0, f32::NAN, 0.0, 0.0, 0.0], "got NaN for token 1"),
            ([0.0, 0.0, f32::INFINITY, 0.0, 0.0], "got inf for token 2"),
            ([nothing; 5], "got -inf"),
            // The one that is left is never drawn.
            ([nothing, nothing, nothing, nothing, 0.0], "got -inf"),
            // And this one may not come yet.
            ([0.0, nothing, nothing, nothing, 0.0], "got -inf"),
        ] {
            let error = sampler.check_edited(&mut edited.clone(), &[0]).unwrap_err();
            assert_eq!((error.kind(), error.option()), (ErrorKind::InvalidOption, Some("logits_processor")));
            assert!(error.to_string().contains(value), "{error}");
        }
        let mut huge =
            Sampler::new(&SamplingOptions { temperature: 0.1, ..SamplingOptions::default() }, Vec::new());
        assert_eq!(huge.as_mut().unwrap().draw(vec![f32::MIN, f32::MAX, nothing]).unwrap(), 1);
        assert_eq!(huge.as_mut().unwrap().draw(vec![f32::MIN, nothing]).unwrap(), 0);
        let mut edited = [1.0; 5];
        sampler.check_edited(&mut edited, &[0]).unwrap();
        assert_eq!(edited, [nothing, 1.0, 1.0, 1.0, nothing]);
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let default = SamplingOptions::default();
        let cases = [
            (SamplingOptions { temperature: -0.1, ..default.clone() }, "temperature"),
            (SamplingOptions { temperature: f64::NAN, ..default.clone() }, "temperature"),
            (SamplingOptions { top_k: Some(0), ..default.clone() }, "top_k"),
            (SamplingOptions { typical_p: Some(2.0), ..default.clone() }, "typical_p"),
            (SamplingOptions { typical_p: Some(0.0), ..default.clone() }, "typical_p"),
            (SamplingOptions { top_p: Some(2.0), ..default.clone() }, "top_p"),
            (SamplingOptions { top_p: Some(0.0), ..default.clone() }, "top_p"),
            (SamplingOptions { min_p: Some(-0.1), ..default.clone() }, "min_p"),
            (SamplingOptions { repetition_penalty: 0.0, ..default.clone() }, "repetition_penalty"),
            (SamplingOptions { presence_penalty: f32::INFINITY, ..default.clone() }, "presence_penalty"),
            (SamplingOptions { frequency_penalty: f32::NAN, ..default.clone() }, "frequency_penalty"),
            (SamplingOptions { logit_bias: vec![(3, f32::NAN)], ..default }, "logit_bias"),
        ];
        for (options, name) in cases {
            assert_eq!(options.validate().unwrap_err().option(), Some(name));
        }
    }

    #[test]
    fn log_probabilities_sum_to_one_and_the_likeliest_come_first() {
        let log_probability = log_softmax(&LOGITS);
        let sum: f32 = (0..5).map(|id| log_probability(id).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        assert_eq!(most_likely(&LOGITS, 3), [1, 2, 0]);
        assert_eq!(most_likely(&LOGITS, 9), [1, 2, 0, 4, 3]);
        assert!(most_likely(&LOGITS, 0).is_empty());
    }
}
