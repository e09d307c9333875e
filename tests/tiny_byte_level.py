"""Tiny byte-level vocabularies of the family, as metadata of a GGUF file."""

from __future__ import annotations

from typing import Any

import gguf

CONTROL_TOKENS = {
    "phi-2": ("<|endoftext|>",),
    "dbrx": ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_sep|>"),
    "gpt-4o": ("<|endoftext|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"),
}
"""By pre-tokenizer: those of phi-2, Phi-4 and Phi-4-mini."""

_MERGED = ("Ġthe", "Ġice", "Ġhello", "hello", "ing", "12", "ĊĊ", "ĠĠ")


def byte_letters() -> list[str]:
    """The letter that stands for each byte, as GPT-2 chose them: printable bytes stand for themselves."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    letters = [""] * 256
    for byte in printable:
        letters[byte] = chr(byte)
    others = [byte for byte in range(256) if byte not in set(printable)]
    for offset, byte in enumerate(others):
        letters[byte] = chr(256 + offset)
    return letters


def metadata(pre: str, size: int) -> dict[str, Any]:
    """The vocabulary with the pre-tokenizer ``pre``, filled up to ``size`` tokens with padding."""
    tokens, merges = byte_letters(), list[str]()
    for text in _MERGED:
        for end in range(2, len(text) + 1):
            if text[:end] not in tokens:
                tokens.append(text[:end])
                merges.append(f"{text[: end - 1]} {text[end - 1]}")
    types = [int(gguf.TokenType.NORMAL)] * len(tokens)
    tokens += CONTROL_TOKENS[pre]
    types += [int(gguf.TokenType.CONTROL)] * len(CONTROL_TOKENS[pre])
    if len(tokens) > size:
        message = f"a vocabulary with the pre-tokenizer {pre} needs at least {len(tokens)} tokens, got {size}"
        raise ValueError(message)
    while len(tokens) < size:
        tokens.append(f"[PAD{len(tokens)}]")
        types.append(int(gguf.TokenType.UNUSED))
    end_of_text = tokens.index("<|endoftext|>")
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": end_of_text,
        "tokenizer.ggml.eos_token_id": end_of_text,
        "tokenizer.ggml.scores": None,
        "tokenizer.ggml.unknown_token_id": None,
        "tokenizer.ggml.padding_token_id": None,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.chat_template": None,
    }
