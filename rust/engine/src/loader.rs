//! A model: weights, tokenizer and chat format of one file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tracing::debug_span;

use crate::architecture::Conversion;
use crate::cache::{KvCache, PageCache};
use crate::chat::{ChatFormat, ChatTemplate};
use crate::config::{LARGEST_PREFILL_CHUNK, PhiConfig};
use crate::device::{DeviceChoice, DeviceSpec, prefill_chunk_on_gpu};
use crate::fingerprint::Fingerprint;
use crate::gguf::{CONVERTED, Gguf, LoadProgress};
use crate::info::{ModelInfo, weights_bytes};
use crate::machine::{Compute, ExecutorKind};
use crate::memory::{self, limit};
use crate::model::{self, Logits, Model};
use crate::tokenizer::{Tokenizer, TokenizerOptions, VocabularyFamily};
use crate::{CancelToken, Error, ErrorKind, KvDtype, Result};

/// How to load a model.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// A tokenizer.json to use in place of the file's own vocabulary.
    pub tokenizer: Option<PathBuf>,
    /// Where to compute.
    pub device: DeviceSpec,
    /// What computes.
    pub executor: ExecutorKind,
    /// Map the file (`true`), or read it into memory once, for files that change while they are in use.
    pub mmap: bool,
    /// Read all of the file while loading, so that no forward pass waits for the disk.
    pub prefault: bool,
    /// Lock the file into memory, so that the system does not drop parts of it. Systems limit how much may be locked.
    pub mlock: bool,
    /// Whether control tokens of the file's vocabulary swallow white space behind them, as all Phi-3 tokenizers
    /// since July 2024 have it. A GGUF can't say. Without meaning where `tokenizer` is given.
    pub rstrip_control_tokens: bool,
    /// The chat format, in place of the template that the file brings.
    pub chat_format: Option<ChatFormat>,
    /// How many positions a position sees, itself included; 0 for all before it. `None`: what the file says, or what
    /// the model was trained with where it is known to and the file does not say.
    pub sliding_window: Option<usize>,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            tokenizer: None,
            device: DeviceSpec::Auto,
            executor: ExecutorKind::Auto,
            mmap: true,
            prefault: false,
            mlock: false,
            rstrip_control_tokens: true,
            chat_format: None,
            sliding_window: None,
        }
    }
}

/// Weights, tokenizer and chat format of one GGUF file.
///
/// Immutable: sessions on many threads share one model.
pub struct Phi3Model {
    model: Box<dyn Model>,
    tokenizer: Tokenizer,
    chat_template: Option<ChatTemplate>,
    /// Why the file's own chat template cannot be used.
    chat_problem: Option<String>,
    info: ModelInfo,
    path: PathBuf,
    device: DeviceChoice,
    executor: ExecutorKind,
    load_time: Duration,
    masked_ids: Vec<u32>,
    gguf: Arc<Gguf>,
    /// Told from the weights when it is first asked for.
    fingerprint: OnceLock<Fingerprint>,
}

impl Phi3Model {
    /// Loads a model from a GGUF file.
    ///
    /// # Errors
    /// [`ModelNotFound`](crate::ErrorKind::ModelNotFound), [`InvalidModel`](crate::ErrorKind::InvalidModel),
    /// [`UnsupportedModel`](crate::ErrorKind::UnsupportedModel), [`Device`](crate::ErrorKind::Device), and
    /// [`Cancelled`](crate::ErrorKind::Cancelled) once `cancel` is set.
    pub fn load(path: &Path, options: &LoadOptions, cancel: &CancelToken) -> Result<Self> {
        Self::load_with_progress(path, options, &mut |_| (), cancel)
    }

    /// As [`load`](Self::load); `progress` is told how much of the file was read, where
    /// [`prefault`](LoadOptions::prefault) asks for it.
    pub fn load_with_progress(
        path: &Path,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress<'_>),
        cancel: &CancelToken,
    ) -> Result<Self> {
        Self::load_from(path, |path| Gguf::open(path, options.mmap, cancel), options, progress, cancel)
    }

    /// Loads a model from the bytes of a GGUF file, which are copied; the path is `<memory>` then, and
    /// [`mmap`](LoadOptions::mmap) is without meaning.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_bytes(bytes: &[u8], options: &LoadOptions, cancel: &CancelToken) -> Result<Self> {
        let open = |name: &Path| Gguf::from_bytes(name, bytes);
        Self::load_from(Path::new("<memory>"), open, options, &mut |_| (), cancel)
    }

    fn load_from(
        path: &Path,
        open: impl FnOnce(&Path) -> Result<Gguf>,
        options: &LoadOptions,
        progress: &mut dyn FnMut(LoadProgress<'_>),
        cancel: &CancelToken,
    ) -> Result<Self> {
        let _span = debug_span!("load", path = %path.display()).entered();
        let started = Instant::now();
        let (device, reason) = debug_span!("device").in_scope(|| options.device.open())?;
        let choice = DeviceChoice { device: device.spec(), reason };
        let executor = options.executor.resolve(choice.device)?;
        let gguf = Arc::new(debug_span!("open").in_scope(|| open(path))?);
        let conversion = Conversion::of(&gguf)?;
        cancel.check()?;
        let tokenizer = debug_span!("tokenizer").in_scope(|| match &options.tokenizer {
            Some(path) => Tokenizer::from_tokenizer_json(path),
            None => {
                let rstrip_control_tokens = options.rstrip_control_tokens;
                Tokenizer::from_gguf(&gguf, &TokenizerOptions { rstrip_control_tokens })
            }
        })?;
        let config = PhiConfig::from_gguf(&gguf)?.with_sliding_window(options.sliding_window);
        check_vocabulary(&gguf, &config, &tokenizer)?;
        check_family(&gguf, conversion, &tokenizer)?;
        let tokenizer_json = options.tokenizer.as_deref();
        let chat_template = debug_span!("chat_template")
            .in_scope(|| ChatTemplate::load(&gguf, &tokenizer, tokenizer_json, options.chat_format));
        // Raw prompts need no template.
        let (chat_template, chat_problem) = match chat_template {
            Err(error) if error.kind() == ErrorKind::InvalidModel => {
                tracing::warn!(%error, "the chat template cannot be used; raw prompts can");
                (None, Some(error.to_string()))
            }
            loaded => (loaded?, None),
        };
        if executor == ExecutorKind::Candle && !choice.device.is_gpu() {
            let remedy = "set executor to \"kernels\", which reads them in the file, or use a smaller file";
            limit::check(weights_bytes(&gguf), "Candle's executor, which copies the weights,", remedy)?;
        }
        let model = debug_span!("weights").in_scope(|| model::load(&gguf, &config, executor, &device, cancel))?;
        if options.mlock {
            debug_span!("mlock").in_scope(|| gguf.lock())?;
        }
        if options.prefault {
            debug_span!("prefault").in_scope(|| gguf.prefault(progress, cancel))?;
        }
        let masked_ids = masked_ids(&config, &tokenizer);
        let info = ModelInfo::new(&gguf, config, Some(&tokenizer), chat_template.as_ref())?;
        let load_time = started.elapsed();
        tracing::info!(
            path = %path.display(),
            device = %choice.device,
            reason = choice.reason,
            %executor,
            ?load_time,
            "model loaded"
        );
        if !info.sampling.is_empty() {
            tracing::info!(sampling = %info.sampling, "the file recommends sampling options");
        }
        Ok(Self {
            model,
            tokenizer,
            chat_template,
            chat_problem,
            info,
            path: path.to_owned(),
            device: choice,
            executor,
            load_time,
            masked_ids,
            gguf,
            fingerprint: OnceLock::new(),
        })
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The template that messages are written with.
    ///
    /// # Errors
    /// [`InvalidModel`](ErrorKind::InvalidModel) if the file's own template cannot be used, and
    /// [`UnsupportedModel`](ErrorKind::UnsupportedModel) if there is none and the vocabulary fits no chat format.
    pub fn chat_template(&self) -> Result<&ChatTemplate> {
        self.chat_template.as_ref().ok_or_else(|| match &self.chat_problem {
            Some(problem) => Error::invalid_model(problem.clone()),
            None => Error::unsupported_model(format!(
                "{}: the model cannot chat: the file has no chat template, and its vocabulary lacks the control tokens of \
                 every chat format, as for the base models phi-1.5 and phi-2; use a raw prompt",
                self.path.display()
            )),
        })
    }

    /// Facts about the model.
    #[must_use]
    pub fn info(&self) -> &ModelInfo {
        &self.info
    }

    /// The hyperparameters.
    #[must_use]
    pub fn config(&self) -> &PhiConfig {
        &self.info.config
    }

    /// The file that the model was loaded from; `<memory>` for one that was [loaded from bytes](Self::load_bytes).
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the model computes; never [`DeviceSpec::Auto`].
    #[must_use]
    pub fn device(&self) -> DeviceSpec {
        self.device.device
    }

    /// Why the model computes there, in words: what the device is, and where it was not named, why not another.
    #[must_use]
    pub fn device_reason(&self) -> &str {
        &self.device.reason
    }

    /// What computes; never [`ExecutorKind::Auto`].
    #[must_use]
    pub fn executor(&self) -> ExecutorKind {
        self.executor
    }

    /// How long loading took.
    #[must_use]
    pub fn load_time(&self) -> Duration {
        self.load_time
    }

    /// Ids that are never sampled: padding, and rows of the embedding that no token belongs to.
    pub(crate) fn masked_ids(&self) -> &[u32] {
        &self.masked_ids
    }

    /// What the model is told from others by.
    pub(crate) fn fingerprint(&self) -> Result<&Fingerprint> {
        if let Some(known) = self.fingerprint.get() {
            return Ok(known);
        }
        let told = Fingerprint::of(&self.gguf, self.config(), &self.tokenizer)?;
        Ok(self.fingerprint.get_or_init(|| told))
    }

    /// Fails where the machine has no memory for a full context of `n_ctx` positions.
    pub(crate) fn check_memory(&self, n_ctx: usize, kv_dtype: KvDtype, prefill_chunk: usize) -> Result<()> {
        if self.device().is_gpu() {
            return Ok(());
        }
        // Candle's tensors take as much, less what pads a page's rows.
        let pages = PageCache::new(self.config(), kv_dtype)?;
        let working = self.pass_bytes(prefill_chunk.min(n_ctx), n_ctx);
        memory::check_session(self.config(), &pages, kv_dtype, n_ctx, prefill_chunk, working)
    }

    /// About the bytes that a pass of `rows` positions takes, the last of them the one before `end`.
    fn pass_bytes(&self, rows: usize, end: usize) -> u64 {
        match self.executor {
            ExecutorKind::Candle => memory::candle_pass_bytes(self.config(), rows, end),
            ExecutorKind::Kernels | ExecutorKind::Auto => memory::pass_bytes(self.config(), rows),
        }
    }

    /// Fails where the machine has no memory for `bytes` more of keys and values; a GPU has its own.
    pub(crate) fn check_cache_memory(&self, bytes: u64, what: &str) -> Result<()> {
        if bytes == 0 || self.device().is_gpu() {
            return Ok(());
        }
        limit::check(bytes, what, limit::REMEDY)
    }

    /// An empty cache for `n_ctx` positions.
    pub(crate) fn new_cache(&self, n_ctx: usize, kv_dtype: KvDtype) -> Result<KvCache> {
        self.model.new_cache(n_ctx, kv_dtype)
    }

    /// Runs `tokens` behind the cached ones; logits come back row after row.
    pub(crate) fn forward(
        &self,
        tokens: &[u32],
        cache: &mut KvCache,
        logits: Logits,
        compute: &Compute,
        cancel: &CancelToken,
    ) -> Result<Vec<f32>> {
        let growth = cache.growth_bytes(tokens.len());
        // Within a page the kernels take nothing that is worth a look; what attention takes on Candle grows with each token.
        if growth > 0 || self.executor == ExecutorKind::Candle {
            let working = self.pass_bytes(tokens.len(), cache.len() + tokens.len());
            self.check_cache_memory(working.saturating_add(growth as u64), limit::NEXT_TOKENS)?;
        }
        let logits = self.model.forward(tokens, cache, logits, compute, cancel)?;
        if logits.iter().any(|logit| logit.is_nan()) {
            return Err(Error::inference(
                "the model computed NaN logits: the file is damaged, or a value overflowed; download it again, or set \
                 kv_dtype to \"f32\"",
            ));
        }
        Ok(logits)
    }

    /// How many tokens of a prompt go through the model at once.
    ///
    /// Large enough to share each weight that is read, and on the CPU small enough that a layer takes about a
    /// tenth of a second, since cancelling waits for the layer. It follows from the model's shape and the context
    /// alone, so that the same prompt is always cut the same way.
    pub(crate) fn prefill_chunk(&self, n_ctx: usize) -> usize {
        const SMALLEST: usize = 8;
        const MULTIPLY_ADDS_PER_LAYER: usize = 4_000_000_000;
        let config = self.config();
        if self.device().is_gpu() {
            return prefill_chunk_on_gpu(config.head_count, n_ctx, LARGEST_PREFILL_CHUNK);
        }
        // The kernels look up between parts of a layer.
        if self.executor == ExecutorKind::Kernels {
            return LARGEST_PREFILL_CHUNK;
        }
        let heads = config.head_count + config.head_count_kv;
        let matrices = config.architecture.facts().feed_forward_matrices;
        let weights_per_layer = matrices * config.feed_forward_length * config.embedding_length
            + 2 * heads * config.head_dim * config.embedding_length;
        let tokens = MULTIPLY_ADDS_PER_LAYER / weights_per_layer.max(1);
        (tokens.clamp(SMALLEST, LARGEST_PREFILL_CHUNK) + 1).next_power_of_two() / 2
    }
}

/// A vocabulary that does not fit the model's rows belongs to another model. The one in the file has a token for each
/// row, padding included; a tokenizer.json goes without the padding.
fn check_vocabulary(gguf: &Gguf, config: &PhiConfig, tokenizer: &Tokenizer) -> Result<()> {
    let rows = config.vocabulary_size;
    let path = gguf.path().display();
    if let Some(listed) = gguf.optional_strings("tokenizer.ggml.tokens")?.map(<[String]>::len)
        && listed != rows
    {
        return Err(Error::invalid_model(format!(
            "{path}: metadata key tokenizer.ggml.tokens must have {rows} tokens, one for each row of token_embd.weight, got \
             {listed}; {CONVERTED}"
        )));
    }
    tokenizer.check_same_vocabulary(gguf)?;
    let tokens = tokenizer.vocab_size();
    if tokens > rows {
        return Err(Error::invalid_model(format!(
            "{path}: the tokenizer must have at most {rows} tokens, the rows of token_embd.weight, got {tokens}; set \
             tokenizer to the tokenizer.json of the same model"
        )));
    }
    Ok(())
}

/// Checks that a file whose architecture has other models too is one of Phi's, which its vocabulary tells. The engine was
/// neither made for the others nor tested with them.
fn check_family(gguf: &Gguf, conversion: &Conversion, tokenizer: &Tokenizer) -> Result<()> {
    if !conversion.is_shared || tokenizer.family().is_some_and(VocabularyFamily::has_chat_tokens) {
        return Ok(());
    }
    Err(Error::unsupported_model(format!(
        "{}: architecture {} with a vocabulary that is not Phi's, as it lacks the control tokens of Phi-3, Phi-4 and \
         Phi-4-mini; use a file of a Phi model",
        gguf.path().display(),
        conversion.name
    )))
}

fn masked_ids(config: &PhiConfig, tokenizer: &Tokenizer) -> Vec<u32> {
    let mut ids = tokenizer.padding_ids().to_vec();
    ids.extend(tokenizer.vocab_size() as u32..config.vocabulary_size as u32);
    ids
}
