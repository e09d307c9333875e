"""The names that other libraries use: the name in this package, or what to do instead.

These tables are hints for error messages. No name in them is accepted as an alias.
"""

from typing import TYPE_CHECKING

from candle_phi._pages import page

STRUCTURED_OUTPUT = (
    f"structured output is not available in this version; {page('guides/json-answers.md')} describes alternatives"
)
TOOL_CALLS = (
    f"tool calls are not available in this version; {page('guides/coming-from.md')} describes alternatives"
)
_TEXT_ONLY = "the model reads and writes text only"
_SYSTEM = 'begin the messages with Message.system("...")'
_SEVERAL = "use generate_many(), which returns several completions of one prompt"
_CONFIG = "pass the options as keywords, or a GenerationConfig as config"
_NO_SERVICE = "leave it out: the model runs in this process, without a service"
_REUSED = "leave it out: the prefix that a prompt shares with the last one is always reused"
_AUTOMATIC = "leave it out: it is chosen automatically"
_IN_THE_FILE = "leave it out: it is read from the model file"
_OTHER_FILE = "it is a property of the file: choose another file with quantization or filename"
_NO_STAGE = "this sampling stage is not available; GenerationConfig lists the available ones"

OPTIONS = {
    "cache_type_k": "kv_dtype",
    "cache_type_v": "kv_dtype",
    "context_length": "n_ctx",
    "context_size": "n_ctx",
    "ctx_size": "n_ctx",
    "device_map": "device",
    "eos_token_id": "stop_token_ids",
    "files": "filename",
    "gguf_file": "filename",
    "gpu_layers": "device",
    "main_gpu": "device",
    "max_completion_tokens": "max_tokens",
    "max_length": "max_tokens",
    "max_model_len": "n_ctx",
    "max_new_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "max_seq_len": "n_ctx",
    "min_length": "min_tokens",
    "min_new_tokens": "min_tokens",
    "model": "name_or_repo",
    "model_file": "filename",
    "model_id": "name_or_repo",
    "model_path": "path",
    "n_gpu_layers": "device",
    "n_predict": "max_tokens",
    "n_threads_batch": "n_threads",
    "num_ctx": "n_ctx",
    "num_gpu": "device",
    "num_predict": "max_tokens",
    "num_thread": "n_threads",
    "num_threads": "n_threads",
    "penalty_last_n": "repeat_last_n",
    "penalty_repeat": "repetition_penalty",
    "pretrained_model_name_or_path": "name_or_repo",
    "quant": "quantization",
    "quantized_filename": "filename",
    "quantized_model_id": "name_or_repo",
    "random_seed": "seed",
    "repeat_last_n_tokens": "repeat_last_n",
    "repeat_penalty": "repetition_penalty",
    "repo_id": "name_or_repo",
    "rng_seed": "seed",
    "sample_len": "max_tokens",
    "stop_seqs": "stop",
    "stop_sequences": "stop",
    "stop_strings": "stop",
    "stops": "stop",
    "temp": "temperature",
    "threads": "n_threads",
    "type_k": "kv_dtype",
    "type_v": "kv_dtype",
    "use_mlock": "mlock",
    "use_mmap": "mmap",
}
"""Names of options in other libraries, and the options of this package."""

ADVICE = {
    # Structured output and tools
    **dict.fromkeys(
        (
            *("format", "grammar", "guided_choice", "guided_decoding", "guided_grammar", "guided_json"),
            *("guided_regex", "json_mode", "json_schema", "regex", "response_format", "response_model", "schema"),
            *("structured_outputs",),
        ),
        STRUCTURED_OUTPUT,
    ),
    **dict.fromkeys(
        ("function_call", "functions", "parallel_tool_calls", "tool_choice", "tools"),
        TOOL_CALLS,
    ),
    **dict.fromkeys(("audio", "chat_handler", "clip_model_path", "images", "modalities", "videos"), _TEXT_ONLY),
    # Another call, or another argument
    "best_of": f"{_SEVERAL}, and choose one of them",
    "do_sample": "set temperature to 0 for greedy decoding; any other temperature samples",
    "logits_all": "use logits(), score(), or logprobs with echo",
    "messages": "use chat(), which takes messages",
    "model": "a session already has its model; open one session for each model",
    "n": _SEVERAL,
    "num_beams": f"beam search is not available; {_SEVERAL}",
    "num_return_sequences": _SEVERAL,
    "options": _CONFIG,
    "prompt": "use generate(), which takes a raw prompt",
    "stream_options": "leave it out: after the last chunk, stream.result.usage has the token counts",
    "streamer": "use chat_stream(), and print each chunk",
    "top_logprobs": "set logprobs to the number of most likely tokens to report",
    "verbose": f'use logging.getLogger("candle_phi"); {page("guides/logging.md")} describes the levels',
    **dict.fromkeys(("extra_body", "generation_config", "generation_kwargs", "sampling_params"), _CONFIG),
    **dict.fromkeys(("instructions", "system", "system_message", "system_prompt"), _SYSTEM),
    # No counterpart
    **dict.fromkeys(("embedding", "embeddings"), "embeddings are not available"),
    **dict.fromkeys(
        ("adapter", "lora", "lora_base", "lora_path"),
        "adapters are not available; merge the adapter into the model before it is converted",
    ),
    **dict.fromkeys(
        (
            *("dry_multiplier", "dynatemp_range", "length_penalty", "mirostat", "mirostat_eta", "mirostat_tau"),
            *("no_repeat_ngram_size", "penalty_alpha", "tfs_z", "xtc_probability", "xtc_threshold"),
        ),
        _NO_STAGE,
    ),
    **dict.fromkeys(
        (
            *("api_key", "base_url", "keep_alive", "max_retries", "metadata", "prompt_cache_key"),
            *("safety_identifier", "service_tier", "store", "user"),
        ),
        _NO_SERVICE,
    ),
    **dict.fromkeys(("cache_prompt", "past_key_values", "use_cache"), _REUSED),
    **dict.fromkeys(
        (
            *("attn_implementation", "batch_size", "flash_attention", "flash_attn", "n_batch", "n_ubatch"),
            *("num_batch", "numa", "offload_kqv", "op_offload", "swa_full"),
        ),
        _AUTOMATIC,
    ),
    **dict.fromkeys(("rope_freq_base", "rope_freq_scale", "rope_scaling", "rope_scaling_type"), _IN_THE_FILE),
    **dict.fromkeys(("dtype", "load_in_4bit", "load_in_8bit", "quantization_config", "torch_dtype"), _OTHER_FILE),
    **dict.fromkeys(("split_mode", "tensor_split"), "a model runs on one device; set device"),
    **dict.fromkeys(("attention_mask", "pad_token_id"), "leave it out: prompts are not padded"),
    "reasoning_effort": "leave it out: a model reasons as it was trained to",
    "think": "leave it out: a model reasons as it was trained to",
    **dict.fromkeys(("callback", "callbacks", "on_token"), "use chat_stream() or stream(), and read the chunks"),
    **dict.fromkeys(("add_generation_prompt", "skip_special_tokens"), "leave it out: chat() does so by itself"),
    "raw": "generate() takes a raw prompt, chat() applies the chat format",
    "return_full_text": "set echo to prepend the prompt",
    "stopping_criteria": "set stop or stop_token_ids, or leave the loop over chat_stream()",
    "suffix": "text cannot be inserted before a suffix; only continuing a prompt is available",
    "trust_remote_code": "leave it out: code from repositories is never run",
}
"""Keywords of other libraries without a counterpart in this package, and what to do instead."""

_STREAMING = {"agenerate": "astream", "achat": "achat_stream", "chat": "chat_stream", "generate": "stream"}

ROLES = {
    "ai": "use assistant",
    "bot": "use assistant",
    "developer": "use system",
    "function": f"{TOOL_CALLS}; give a tool's result as a user's message",
    "gpt": "use assistant",
    "human": "use user",
    "ipython": f"{TOOL_CALLS}; give a tool's result as a user's message",
    "model": "use assistant",
    "tool": f"{TOOL_CALLS}; give a tool's result as a user's message",
}
"""Roles of messages in other libraries, and what to do instead."""

MESSAGE_KEYS = {
    "audio": _TEXT_ONLY,
    "function_call": TOOL_CALLS,
    "images": _TEXT_ONLY,
    "name": "chat formats do not have names: write the name into the content",
    "tool_call_id": TOOL_CALLS,
    "tool_calls": TOOL_CALLS,
    "tool_name": TOOL_CALLS,
}
"""Keys of messages in other libraries that are not supported, and what to do instead."""

_TEXT = "use .text, or str() of the object"
_ON_A_SESSION = "open a session on the model: Phi3Session(model=model)"

ATTRIBUTES = {
    "Completion": {
        **dict.fromkeys(("choices", "content", "message", "output_text", "outputs", "response"), _TEXT),
        "model": "use session.model",
    },
    "Chunk": dict.fromkeys(("choices", "content", "delta", "message", "response"), _TEXT),
    "Phi3Session": {
        **dict.fromkeys(
            ("complete", "completions", "create_completion", "predict"),
            "use generate() or stream() for a raw prompt, chat() or chat_stream() for messages",
        ),
        **dict.fromkeys(
            ("chat_completion", "create_chat_completion", "invoke", "send_chat_request"),
            "use chat() or chat_stream()",
        ),
        **dict.fromkeys(("create_embedding", "embed", "encode_text"), "embeddings are not available"),
        **dict.fromkeys(("history", "turns"), "use .messages, which is the conversation"),
        **dict.fromkeys(("set_system", "system", "system_prompt"), _SYSTEM),
        "tokenizer": "use tokenize() and detokenize()",
    },
    "Phi3Model": {
        **dict.fromkeys(
            (
                *(
                    "achat",
                    "achat_stream",
                    "agenerate",
                    "astream",
                    "chat",
                    "chat_stream",
                    "create_chat_completion",
                ),
                *("create_completion", "generate", "generate_many", "logits", "score", "stream"),
            ),
            _ON_A_SESSION,
        ),
        "tokenizer": "use tokenize() and detokenize()",
    },
}
"""Attributes of other libraries' objects by the class of this package, and what to do instead."""


def advice(function: str, keyword: str) -> str | None:
    """Return what to do instead of passing a keyword of another library.

    Args:
        function: The name of the called function.
        keyword: The keyword.

    Returns:
        A clause, or None if the keyword is not known.
    """
    if keyword == "stream":
        if function in _STREAMING.values():
            return f"leave it out: {function}() always streams"
        return f"use {_STREAMING.get(function, 'chat_stream')}(), which returns an iterator of chunks"
    return ADVICE.get(keyword)


class ForeignAttributes:
    """A base class whose error for an unknown attribute suggests what to use in place of another library's one."""

    __slots__ = ()

    if not TYPE_CHECKING:  # type checkers should report such an attribute

        def __getattr__(self, name: str) -> object:
            """Raise the error for an attribute that does not exist."""
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            hints = (ATTRIBUTES.get(cls.__name__, {}).get(name) for cls in type(self).__mro__)
            hint = next((hint for hint in hints if hint is not None), None)
            raise AttributeError(message if hint is None else f"{message}: {hint}", name=name, obj=self)
