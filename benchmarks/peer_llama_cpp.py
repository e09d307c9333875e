"""llama.cpp through llama-cpp-python's low-level interface: exactly ``llama_decode``, nothing around it.

Its best flags for this work: the same number of threads for both phases, batches of 512 so that a prompt of 512 is
one call, flash attention on, keys and values in f16, the file mapped and repacked where it can be, logits of the
last position only. llama.cpp switches the sliding window of the `phi3` architecture off by itself ("Phi SWA is
currently disabled"), so every token sees all before it, whatever the file says.
"""

from __future__ import annotations

import ctypes
import time
from typing import Any

import llama_cpp
import numpy as np

import worker

FLASH_ATTENTION_ON = 1


@llama_cpp.llama_log_callback
def _be_quiet(_level: int, _text: bytes, _data: Any) -> None:
    pass


class LlamaCpp(worker.Engine):
    """A model, and a context for each depth: what stands in one is not disturbed by other prompts."""

    name = "llama.cpp"

    @property
    def version(self) -> str:
        """The version of llama-cpp-python, and the instructions it was built for."""
        said = llama_cpp.llama_print_system_info().decode()  # "CPU : AVX = 1 | AVX2 = 1 | "
        features = said.split(":")[-1].replace("= 1", "").replace("|", "").split()
        return f"llama-cpp-python {llama_cpp.__version__} ({' '.join(features)})"

    def load(self) -> None:
        """The model, and the context that prompts go to."""
        if "verbose" not in self.options.extra:
            llama_cpp.llama_log_set(_be_quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        path = str(self.options.model).encode()
        self.model = llama_cpp.llama_model_load_from_file(path, llama_cpp.llama_model_default_params())
        if not self.model:
            raise SystemExit(f"llama.cpp does not load {self.options.model}")
        self.size: int = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.contexts: dict[int, Any] = {}
        self.held: dict[int, int] = {}
        self.main = self.context(0, 512 + self.options.room)

    def context(self, key: int, n_ctx: int) -> Any:
        """A context with the best flags."""
        if key not in self.contexts:
            params = llama_cpp.llama_context_default_params()
            params.n_ctx = n_ctx
            params.n_batch = params.n_ubatch = 512
            params.n_threads = params.n_threads_batch = self.options.threads
            params.flash_attn_type = FLASH_ATTENTION_ON
            params.type_k = params.type_v = llama_cpp.GGML_TYPE_F16
            params.swa_full = True
            self.contexts[key] = llama_cpp.llama_init_from_model(self.model, params)
            if not self.contexts[key]:
                raise RuntimeError(f"llama.cpp makes no context of {n_ctx} tokens")
        return self.contexts[key]

    def read(self, context: Any, tokens: list[int]) -> int:
        """Reads tokens behind what is there; the likeliest next token."""
        for start in range(0, len(tokens), 512):
            piece = tokens[start : start + 512]
            array = (llama_cpp.llama_token * len(piece))(*piece)
            code = llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(array, len(piece)))
            if code:
                raise RuntimeError(f"llama_decode gave {code}")
        logits = llama_cpp.llama_get_logits_ith(context, -1)
        return int(np.argmax(np.ctypeslib.as_array(logits, shape=(self.size,))))

    def forward(self, tokens: list[int]) -> None:
        """One call for a prompt of up to 512 tokens."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.main), False)
        self.read(self.main, tokens)

    def decode(self, prompt: list[int], count: int) -> float:
        """Goes back to the prompt's end first, where the context has held it before."""
        depth = len(prompt)
        # Depths of a comparison have a context of their own, since nothing else may overwrite it.
        own = depth if depth > 1 and depth in self.options.depths else 0
        context = self.context(own, depth + self.options.room) if own else self.main
        memory = llama_cpp.llama_get_memory(context)
        if own and own in self.held:
            llama_cpp.llama_memory_seq_rm(memory, 0, depth, -1)
            token = self.held[own]
        else:
            llama_cpp.llama_memory_clear(memory, False)
            token = self.read(context, prompt)
            self.held[own] = token
        start = time.perf_counter()
        for _ in range(count):
            token = self.read(context, [token])
        return time.perf_counter() - start

    def cache_bytes(self, tokens: int) -> int:
        """llama.cpp clears all of the context's cache when it makes it, so all of it is resident."""
        del tokens
        meta = {
            key: self.number(key)
            for key in ("block_count", "embedding_length", "attention.head_count", "attention.head_count_kv")
        }
        head_dim = llama_cpp.llama_model_n_embd(self.model) // meta["attention.head_count"]
        per_token = 2 * 2 * meta["block_count"] * meta["attention.head_count_kv"] * head_dim
        return per_token * int(llama_cpp.llama_n_ctx(self.main))

    def number(self, key: str) -> int:
        """A number of the file's metadata."""
        buffer = ctypes.create_string_buffer(64)
        for architecture in (b"phi3", b"phi2"):
            full = architecture + b"." + key.encode()
            if llama_cpp.llama_model_meta_val_str(self.model, full, buffer, len(buffer)) >= 0:
                return int(buffer.value)
        raise KeyError(key)

    @property
    def vocabulary_size(self) -> int:
        """Rows of the output."""
        return self.size


if __name__ == "__main__":
    worker.serve(LlamaCpp)
