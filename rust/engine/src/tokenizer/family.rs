//! The vocabularies of the family, and what follows from which it is and no file says.

/// Control tokens of Microsoft's vocabularies. Files of old converters list them as user-defined tokens or as pieces
/// of text, so their text counts and not their type.
const CONTROL_TEXTS: [&str; 23] = [
    "<unk>",
    "<s>",
    "</s>",
    "<|endoftext|>",
    "<|endofprompt|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<|im_start|>",
    "<|im_sep|>",
    "<|im_end|>",
    "<|tool|>",
    "<|/tool|>",
    "<|tool_call|>",
    "<|/tool_call|>",
    "<|tool_response|>",
    "<|start|>",
    "<|message|>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|tag|>",
];

/// Whether a text is that of a control token of Microsoft's vocabularies.
pub(super) fn is_control_text(text: &str) -> bool {
    CONTROL_TEXTS.contains(&text) || is_numbered(text, "<|placeholder") || is_reserved(text)
}

/// The vocabularies of the family, known by their kind and their control tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VocabularyFamily {
    /// Phi-1.5 and Phi-2: the byte-level BPE of CodeGen.
    Phi2,
    /// Phi-3 and Phi-3.5: SentencePiece, with `<|user|>`, `<|assistant|>` and `<|end|>`.
    Phi3,
    /// Phi-4 and Phi-4-reasoning: byte-level BPE, with `<|im_start|>`, `<|im_sep|>` and `<|im_end|>`.
    Phi4,
    /// Phi-4-mini and Phi-4-mini-reasoning: byte-level BPE, with `<|user|>`, `<|assistant|>` and `<|end|>`.
    Phi4Mini,
}

/// How a vocabulary cuts text into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VocabularyKind {
    SentencePiece,
    /// Byte-level BPE on GPT-2's words.
    Gpt2,
    /// Byte-level BPE on other words.
    ByteLevel,
}

impl VocabularyFamily {
    /// The family of a vocabulary of this kind, in which `has` says which control tokens there are.
    pub(super) fn detect(kind: VocabularyKind, has: impl Fn(&str) -> bool) -> Option<Self> {
        let chat = ["<|user|>", "<|assistant|>", "<|end|>"].into_iter().all(&has);
        match kind {
            VocabularyKind::SentencePiece => chat.then_some(Self::Phi3),
            VocabularyKind::Gpt2 => Some(Self::Phi2),
            VocabularyKind::ByteLevel if ["<|im_start|>", "<|im_sep|>", "<|im_end|>"].into_iter().all(&has) => {
                Some(Self::Phi4)
            }
            VocabularyKind::ByteLevel => chat.then_some(Self::Phi4Mini),
        }
    }

    /// Whether the family's chat tokens tell it; otherwise the kind of the vocabulary alone does.
    pub(crate) fn has_chat_tokens(self) -> bool {
        self != Self::Phi2
    }

    /// Whether a control token swallows the white space in front of it and behind it: what the models were trained
    /// with, and a GGUF can't say. Phi-3's are since the July 2024 revision.
    pub(super) fn strips(self, text: &str) -> (bool, bool) {
        // A token that a fine-tune added strips nothing.
        let marked = text.starts_with("<|") && is_control_text(text);
        match self {
            Self::Phi2 => (false, false),
            Self::Phi3 => (false, (marked && text != "<|endoftext|>") || text == "</s>"),
            Self::Phi4 => (marked, marked),
            // `<|endoftext|>` and `<|endofprompt|>` are older than the chat tokens.
            Self::Phi4Mini => (false, marked && !text.starts_with("<|endof")),
        }
    }

    /// Whether a control token is a part of an answer that a reader needs: those around calls of tools.
    pub(super) fn shows(self, text: &str) -> bool {
        self == Self::Phi4Mini
            && ["<|tool|>", "<|/tool|>", "<|tool_call|>", "<|/tool_call|>", "<|tool_response|>"].contains(&text)
    }

    /// Tokens that end this family's turns and no others', beside those that end every family's.
    pub(super) fn end_texts(self) -> &'static [&'static str] {
        match self {
            // In the family's generation_config.json: a model that begins another answer has ended its own.
            Self::Phi3 => &["<|assistant|>"],
            Self::Phi2 | Self::Phi4 | Self::Phi4Mini => &[],
        }
    }
}

/// Whether a control token only keeps its place in the vocabulary: Phi-4's `<|dummy_0|>` and so on.
pub(super) fn is_reserved(text: &str) -> bool {
    is_numbered(text, "<|dummy_")
}

/// Whether a text is `prefix`, a number and `|>`.
fn is_numbered(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix)
        .and_then(|rest| rest.strip_suffix("|>"))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}
