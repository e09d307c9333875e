//! Byte-level vocabularies: a small one, those of Phi-4 and Phi-4-mini out of the crate `tiktoken-rs`, and Phi-2's out
//! of its tokenizer.json.
#![allow(clippy::indexing_slicing, reason = "fixtures are of known size")]

use std::collections::HashMap;

use candle_phi_engine::{Gguf, Tokenizer, TokenizerOptions};
use serde_json::{Value, json};
use tiktoken_rs::CoreBPE;

use super::{CONTROL, Meta, NORMAL, UNUSED, USER_DEFINED, gguf, test_data};

/// The regexes of the three pre-tokenizers, as the models' tokenizer.json files have them.
pub const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
pub const CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
pub const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// A byte-level vocabulary as a GGUF has it.
#[derive(Clone)]
pub struct ByteVocabulary {
    pub texts: Vec<String>,
    pub types: Vec<i32>,
    pub merges: Vec<String>,
    pub keys: Vec<(&'static str, Meta)>,
}

impl ByteVocabulary {
    /// The bytes and a few merges. `pre` is the metadata's.
    pub fn small(pre: &str) -> Self {
        let mut vocabulary = Self { texts: vec![], types: vec![], merges: vec![], keys: vec![] };
        for byte in 0..=255 {
            vocabulary.add(&byte_text(&[byte]), NORMAL);
        }
        for (left, right) in
            [("h", "e"), ("t", "he"), ("Ġ", "the"), ("Ġ", "Ġ"), ("l", "l"), ("<", "|"), ("|", ">")]
        {
            vocabulary.add(&[left, right].concat(), NORMAL);
            vocabulary.merges.push(format!("{left} {right}"));
        }
        vocabulary.keys = vec![("tokenizer.ggml.model", "gpt2".into()), ("tokenizer.ggml.pre", pre.into())];
        vocabulary
    }

    /// Phi-4's: 100,256 tokens of cl100k, and 96 control tokens.
    pub fn phi4() -> Self {
        let mut vocabulary = Self::of_ranks(&tiktoken_rs::cl100k_base().unwrap(), 100_256, "dbrx");
        let names = [
            (100_257, "endoftext"),
            (100_258, "fim_prefix"),
            (100_259, "fim_middle"),
            (100_260, "fim_suffix"),
            (100_264, "im_start"),
            (100_265, "im_end"),
            (100_266, "im_sep"),
            (100_276, "endofprompt"),
        ];
        let names: HashMap<usize, &str> = names.into_iter().collect();
        let mut dummies = 0..;
        for id in 100_256..100_352 {
            let name = names.get(&id).map(|name| (*name).to_owned());
            let name = name.unwrap_or_else(|| format!("dummy_{}", dummies.next().unwrap_or_default()));
            vocabulary.add(&format!("<|{name}|>"), CONTROL);
        }
        // As in the first files: without the end of a turn.
        vocabulary
            .with("tokenizer.ggml.bos_token_id", Meta::U32(100_257))
            .with("tokenizer.ggml.eos_token_id", Meta::U32(100_257))
    }

    /// Phi-4-mini's: 199,998 tokens of o200k, and 12 control tokens among padding.
    pub fn phi4_mini() -> Self {
        let mut vocabulary = Self::of_ranks(&tiktoken_rs::o200k_base().unwrap(), 199_998, "gpt-4o");
        let names = [
            (199_999, "endoftext"),
            (200_018, "endofprompt"),
            (200_019, "assistant"),
            (200_020, "end"),
            (200_021, "user"),
            (200_022, "system"),
            (200_023, "tool"),
            (200_024, "/tool"),
            (200_025, "tool_call"),
            (200_026, "/tool_call"),
            (200_027, "tool_response"),
            (200_028, "tag"),
        ];
        let names: HashMap<usize, &str> = names.into_iter().collect();
        for id in 199_998..200_064 {
            match names.get(&id) {
                Some(name) => vocabulary.add(&format!("<|{name}|>"), CONTROL),
                None => vocabulary.add(&format!("[PAD{id}]"), UNUSED),
            }
        }
        vocabulary
            .with("tokenizer.ggml.bos_token_id", Meta::U32(199_999))
            .with("tokenizer.ggml.eos_token_id", Meta::U32(199_999))
    }

    /// Phi-2's out of its tokenizer.json, filled up as converters do.
    pub fn phi2() -> Option<Self> {
        let json: Value =
            serde_json::from_slice(&std::fs::read(test_data("tokenizers/phi-2/tokenizer.json")?).unwrap())
                .unwrap();
        let mut vocabulary =
            Self { texts: vec![String::new(); 50_257], types: vec![], merges: vec![], keys: vec![] };
        for (text, id) in json["model"]["vocab"].as_object().unwrap() {
            vocabulary.texts[id.as_u64().unwrap() as usize].clone_from(text);
        }
        vocabulary.types = vec![NORMAL; 50_257];
        vocabulary.types[50_256] = CONTROL;
        for token in json["added_tokens"].as_array().unwrap().iter().skip(1) {
            vocabulary.add(token["content"].as_str().unwrap(), USER_DEFINED);
        }
        for id in 50_295..51_200 {
            // Old converters did not call them unused.
            vocabulary.add(&format!("[PAD{id}]"), USER_DEFINED);
        }
        let merges = json["model"]["merges"].as_array().unwrap();
        vocabulary.merges = merges.iter().map(|merge| merge.as_str().unwrap().to_owned()).collect();
        vocabulary.keys = vec![
            ("tokenizer.ggml.model", "gpt2".into()),
            ("tokenizer.ggml.pre", "phi-2".into()),
            ("tokenizer.ggml.bos_token_id", Meta::U32(50_256)),
            ("tokenizer.ggml.eos_token_id", Meta::U32(50_256)),
        ];
        Some(vocabulary)
    }

    /// The tokens in the order of their ranks, and for each the merge that makes it.
    fn of_ranks(bpe: &CoreBPE, len: u32, pre: &str) -> Self {
        let bytes: Vec<Vec<u8>> = (0..len).map(|rank| bpe.decode_bytes(&[rank]).unwrap()).collect();
        let ranks: HashMap<&[u8], usize> =
            bytes.iter().enumerate().map(|(rank, bytes)| (bytes.as_slice(), rank)).collect();
        let merges = bytes.iter().enumerate().filter(|(_, token)| token.len() > 1).map(|(rank, token)| {
            let (left, right) = halves(token, rank, &ranks);
            format!("{} {}", byte_text(left), byte_text(right))
        });
        Self {
            merges: merges.collect(),
            texts: bytes.iter().map(|bytes| byte_text(bytes)).collect(),
            types: vec![NORMAL; bytes.len()],
            keys: vec![("tokenizer.ggml.model", "gpt2".into()), ("tokenizer.ggml.pre", pre.into())],
        }
    }

    pub fn add(&mut self, text: &str, token_type: i32) {
        self.texts.push(text.to_owned());
        self.types.push(token_type);
    }

    /// The same with a metadata key set.
    pub fn with(mut self, key: &'static str, value: impl Into<Meta>) -> Self {
        self.keys.retain(|(other, _)| *other != key);
        self.keys.push((key, value.into()));
        self
    }

    /// The same with a metadata key left out.
    pub fn without(mut self, key: &str) -> Self {
        self.keys.retain(|(other, _)| *other != key);
        self
    }

    pub fn id(&self, text: &str) -> u32 {
        self.texts.iter().position(|other| other == text).unwrap() as u32
    }

    pub fn ids(&self, texts: &[&str]) -> Vec<u32> {
        texts.iter().map(|text| self.id(text)).collect()
    }

    pub fn gguf(&self) -> Gguf {
        let lists = [
            ("tokenizer.ggml.tokens", Meta::Strings(self.texts.clone())),
            ("tokenizer.ggml.token_type", Meta::I32s(self.types.clone())),
            ("tokenizer.ggml.merges", Meta::Strings(self.merges.clone())),
        ];
        let replaced = |key: &str| self.keys.iter().any(|(other, _)| *other == key);
        let lists = lists.into_iter().filter(|(key, _)| !replaced(key));
        gguf(&lists.chain(self.keys.clone()).collect::<Vec<_>>())
    }

    pub fn tokenizer(&self) -> Tokenizer {
        Tokenizer::from_gguf(&self.gguf(), &TokenizerOptions::default()).unwrap()
    }

    /// The same as a tokenizer.json with these added tokens: `(lstrip, rstrip, special)` by id.
    pub fn json(&self, pattern: &str, added: &HashMap<u32, (bool, bool, bool)>) -> Value {
        let vocab: serde_json::Map<String, Value> = (0_u32..)
            .zip(self.texts.iter().zip(&self.types))
            // The library numbers added tokens anew that the model does not have.
            .filter(|(id, (_, token_type))| **token_type == NORMAL || added.contains_key(id))
            .map(|(id, (text, _))| (text.clone(), id.into()))
            .collect();
        let mut added: Vec<_> = added.iter().collect();
        added.sort_unstable();
        let added: Vec<Value> = added
            .into_iter()
            .map(|(id, (lstrip, rstrip, special))| {
                json!({"id": id, "content": self.texts[*id as usize], "single_word": false, "lstrip": lstrip,
                       "rstrip": rstrip, "normalized": false, "special": special})
            })
            .collect();
        json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Removed", "invert": true},
                {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
            "post_processor": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                      "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "vocab": vocab,
                      "merges": self.merges},
        })
    }
}

/// The two tokens that merge to `token`, by the tokens of lower rank.
fn halves<'a>(token: &'a [u8], rank: usize, ranks: &HashMap<&[u8], usize>) -> (&'a [u8], &'a [u8]) {
    let mut cuts: Vec<usize> = (0..=token.len()).collect();
    while cuts.len() > 3 {
        let merged = cuts.windows(3).enumerate().filter_map(|(index, cuts)| {
            let rank_of_both = *ranks.get(&token[cuts[0]..cuts[2]])?;
            Some((rank_of_both, index + 1)).filter(|_| rank_of_both < rank)
        });
        cuts.remove(merged.min().unwrap().1);
    }
    token.split_at(cuts[1])
}

/// Bytes in the byte-level alphabet: the printable ones of Latin-1, and characters from U+0100 on for the others.
pub fn byte_text(bytes: &[u8]) -> String {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..);
    let text = bytes.iter().map(|byte| match byte {
        byte if printable(byte) => char::from(*byte),
        byte => {
            let others = (0..*byte).filter(|other| !printable(other)).count();
            char::from_u32(0x100 + others as u32).unwrap()
        }
    });
    text.collect()
}
