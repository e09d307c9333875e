"""A model, which any number of sessions and threads can share."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self, Unpack, cast, get_args

from candle_phi import _checks, _convert, _native, hub
from candle_phi._foreign import ForeignAttributes
from candle_phi._unpicklable import Unpicklable
from candle_phi.config import OF_A_GENERATION, Executor, LoadOptions
from candle_phi.exceptions import InputTypeError, ModelNotFoundError
from candle_phi.messages import messages_of
from candle_phi.types import ChatFormat, MessageLike, ModelInfo, Progress

__all__ = ["Phi3Model", "inspect_model"]

_DEMO = Path(__file__).parent / "demo" / "candle-phi-demo.gguf"
_SLIDING_WINDOW = _checks.Range(int, 0, _checks.COUNT_MAX, optional=True, note=" (0 is none)")


class Phi3Model(ForeignAttributes, Unpicklable):
    """The weights, the tokenizer and the chat format of a GGUF file.

    A model is immutable. Sessions on any thread share it, and its memory is freed with the last of them.

    Args:
        path: The GGUF file.
        device: Where to compute: "cpu", "cuda", "cuda:N", "metal", or "auto" for the best of those that were
            compiled in and are there; `device_reason` says why it is that one.
        executor: What computes: "kernels", the package's own for CPUs, which read the weights in the file;
            "candle", Candle's operations, which run on every device and copy the weights to it; or "auto", the
            kernels on a CPU and Candle elsewhere.
        mmap: Map the file instead of reading it whole. Such a file must not be changed or cut short while it is in
            use; with False it is read into memory.
        prefault: Read all of the file while loading, so that no answer waits for the disk. A function is told how
            far that is, as for a download.
        mlock: Lock the file into memory, so that the system never drops parts of it. Systems limit how much may
            be locked (``ulimit -l``).
        tokenizer: A tokenizer.json to use in place of the vocabulary in the file.
        rstrip_control_tokens: Whether control tokens swallow the white space behind them, as in the family's
            tokenizers of July 2024 and later. A GGUF file does not say. False is for files of April 2024.
        chat_format: The chat format, "phi3", "phi4", "phi4-mini" or "phi4-mini-reasoning". None: what the template
            in the file, or beside the tokenizer.json, says.
        sliding_window: How many tokens a token sees, itself included; 0 for all before it. None: what the file
            says. Files of the 4k models that do not say get the 2047 that these were trained with, which a
            fine-tuned model may have changed.

    Raises:
        ModelNotFoundError: There is no such file.
        InvalidModelError: The file is damaged, cut short, or no GGUF file.
        UnsupportedModelError: The file is of an architecture, tensor type or tokenizer that is not supported.
        DeviceError: The device does not exist, was not compiled in, or has too little memory for the model.
        InvalidOptionError: An option is out of its range.
        TypeError: An argument is of the wrong type, or the option does not exist.
    """

    __slots__ = ("__weakref__", "_engine", "_info")

    _instead = (
        "it never changes, so share it within the process, and load it in each other one: processes that map the "
        "same file share its memory"
    )

    @_checks.suggests_keywords_and((), OF_A_GENERATION)
    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        device: str = "auto",
        executor: Executor = "auto",
        mmap: bool = True,
        prefault: bool | Callable[[Progress], object] = False,
        mlock: bool = False,
        tokenizer: str | os.PathLike[str] | None = None,
        rstrip_control_tokens: bool = True,
        chat_format: ChatFormat | None = None,
        sliding_window: int | None = None,
    ) -> None:
        check_loading(
            LoadOptions(
                device=device,
                executor=executor,
                mmap=mmap,
                prefault=prefault,
                mlock=mlock,
                tokenizer=tokenizer,
                rstrip_control_tokens=rstrip_control_tokens,
                chat_format=chat_format,
                sliding_window=sliding_window,
            )
        )
        self._engine = _native.Model(
            hub.model_path(path, "open it with from_pretrained({!r})"),
            device=_checks.as_text(device, "device"),
            executor=executor,
            mmap=_checks.as_bool(mmap, "mmap"),
            prefault=bool(prefault),
            mlock=_checks.as_bool(mlock, "mlock"),
            tokenizer=None if tokenizer is None else _checks.as_path(tokenizer, "tokenizer"),
            rstrip_control_tokens=_checks.as_bool(rstrip_control_tokens, "rstrip_control_tokens"),
            chat_format=chat_format,
            sliding_window=_window(sliding_window),
            progress=_reading(prefault),
        )
        self._info = _convert.model_info(self._engine.info)

    @classmethod
    @_checks.suggests_keywords_and(LoadOptions.__annotations__, OF_A_GENERATION)
    def from_pretrained(
        cls,
        name_or_repo: str,
        filename: str | None = None,
        *,
        quantization: str | None = None,
        revision: str | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        token: str | None = None,
        local_files_only: bool = False,
        progress: bool | Callable[[Progress], object] | None = None,
        **options: Unpack[LoadOptions],
    ) -> Self:
        """Loads a model from the hub, or from its cache.

        Args:
            name_or_repo: A short name (`named_models` lists them), or a repository "owner/name".
            filename: The file in the repository; needed for one without a short name.
            quantization: Which of a named model's files, such as "Q5_K_M". None: its first.
            revision: The branch, tag or commit. None: "main".
            cache_dir: The cache. None: Hugging Face's own, where HF_HOME and HF_HUB_CACHE say.
            token: The access token. None: what HF_TOKEN or ``hf auth login`` say.
            local_files_only: Use the cache only, and open no connection.
            progress: What to tell how far a download is: a function, True for a bar on stderr, False for nothing,
                None for a bar if stderr is a terminal.
            **options: As for `Phi3Model` itself: device, executor, mmap, prefault, mlock, tokenizer,
                rstrip_control_tokens, chat_format, sliding_window.

        Returns:
            The model.

        Raises:
            DownloadError: The download failed, the hub does not have the file, or offline mode forbids it.
            ModelLoadError: The file cannot be loaded.
            InvalidOptionError: There is no model of that name, or an option is out of its range.
            TypeError: An argument is of the wrong type, or the option does not exist.
        """
        check_loading(options)
        path, own_tokenizer = hub.fetch(
            name_or_repo,
            filename,
            quantization=quantization,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            progress=progress,
        )
        options.setdefault("tokenizer", own_tokenizer)
        return cls(path, **options)

    @classmethod
    def demo(cls, **options: Unpack[LoadOptions]) -> Self:
        """Loads the embedded model: a toy that shows the machinery, without a download.

        Args:
            **options: As for `Phi3Model` itself: device, executor, mmap, prefault, mlock, tokenizer,
                rstrip_control_tokens, chat_format, sliding_window.

        Returns:
            The model.

        Raises:
            DeviceError: The device does not exist or was not compiled in.
            InvalidOptionError: An option is out of its range.
            TypeError: An argument is of the wrong type, or the option does not exist.
        """
        _checks.check_keywords("demo", options, LoadOptions.__annotations__, OF_A_GENERATION)
        return cls(_DEMO, **options)

    @property
    def info(self) -> ModelInfo:
        """What the file says about itself."""
        return self._info

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self._engine.path)

    @property
    def device(self) -> str:
        """Where it computes, such as "cpu" or "cuda:0"."""
        return self._engine.device

    @property
    def device_reason(self) -> str:
        """Why it computes there: what the device is, and with "auto" why not another."""
        return self._engine.device_reason

    @property
    def executor(self) -> str:
        """What computes: "kernels" or "candle"."""
        return self._engine.executor

    def tokenize(self, text: str, *, add_bos: bool = False, parse_special: bool = False) -> list[int]:
        """Text to token ids.

        Args:
            text: The text.
            add_bos: Put the token for the beginning of a text first, unless it is there.
            parse_special: Read "<|user|>" and the like as control tokens; otherwise they are plain text.

        Returns:
            The token ids.

        Raises:
            InvalidOptionError: The text has a lone surrogate.
            InputTypeError: It is not a str.
        """
        return self._engine.encode(
            _checks.as_text(text, "text", InputTypeError),
            _checks.as_bool(add_bos, "add_bos"),
            _checks.as_bool(parse_special, "parse_special"),
        )

    def detokenize(self, tokens: Sequence[int], *, skip_special: bool = False) -> str:
        """Token ids to text.

        Args:
            tokens: The token ids.
            skip_special: Leave control tokens out.

        Returns:
            The text. Bytes that are no UTF-8 become U+FFFD.

        Raises:
            InvalidOptionError: A number is not the id of a token.
            InputTypeError: They are not token ids.
        """
        return self._engine.decode(
            _checks.input_tokens(tokens, "tokens", self._engine.vocabulary_size),
            _checks.as_bool(skip_special, "skip_special"),
        )

    def count_tokens(self, text: str) -> int:
        """How many tokens a text has.

        Args:
            text: The text. Control tokens in it are plain text.

        Returns:
            The number of tokens.

        Raises:
            InvalidOptionError: The text has a lone surrogate.
            InputTypeError: It is not a str.
        """
        return len(self.tokenize(text))

    def render_chat(
        self,
        messages: str | Sequence[MessageLike],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> str:
        """The text of the prompt that messages make, for people to read.

        The model reads `render_chat_tokens`: where a message's content has the text of a control token in it, only
        those tell the two apart.

        Args:
            messages: The messages; a text is one of the user's.
            add_generation_prompt: End with the beginning of the assistant's turn.
            continue_final_message: Leave the last message open, so that the model continues it. Excludes
                `add_generation_prompt`, which then must be False.

        Returns:
            The prompt.

        Raises:
            UnsupportedModelError: The model has no chat format that is known.
            InvalidOptionError: The messages are none, or in an order that the format doesn't have.
            InputTypeError: They are not messages.
        """
        return self._engine.render_chat(
            messages_of(messages),
            _checks.as_bool(add_generation_prompt, "add_generation_prompt"),
            _checks.as_bool(continue_final_message, "continue_final_message"),
        )

    def render_chat_tokens(
        self,
        messages: str | Sequence[MessageLike],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> list[int]:
        """The token ids of the prompt that messages make. Their contents never become control tokens.

        Args:
            messages: The messages; a text is one of the user's.
            add_generation_prompt: End with the beginning of the assistant's turn.
            continue_final_message: Leave the last message open, so that the model continues it. Excludes
                `add_generation_prompt`, which then must be False.

        Returns:
            The token ids.

        Raises:
            UnsupportedModelError: The model has no chat format that is known.
            InvalidOptionError: The messages are none, or in an order that the format doesn't have.
            InputTypeError: They are not messages.
        """
        return self._engine.encode_chat(
            messages_of(messages),
            _checks.as_bool(add_generation_prompt, "add_generation_prompt"),
            _checks.as_bool(continue_final_message, "continue_final_message"),
        )

    def __repr__(self) -> str:
        info = self._info
        return (
            f"<Phi3Model {str(self.path)!r} {info.architecture} {info.quantization} "
            f"{info.parameter_count:,} parameters on {self.device}>"
        )


def inspect_model(path: str | os.PathLike[str]) -> ModelInfo:
    """What a model file says about itself, read without its weights.

    Args:
        path: The GGUF file.

    Returns:
        The facts.

    Raises:
        ModelNotFoundError: There is no such file.
        InvalidModelError: The file is damaged, cut short, or no GGUF file.
        UnsupportedModelError: The file is of an architecture that is not supported.
        InvalidOptionError: The path is empty.
        TypeError: It is no path.
    """
    return _convert.model_info(_native.inspect(hub.model_path(path, hub.DOWNLOAD)))


def _window(value: object) -> int | None:
    return cast("int | None", _SLIDING_WINDOW.check("sliding_window", value))


def _reading(prefault: object) -> Callable[[_native.Progress], object] | None:
    """What the native module tells how much of the file was read."""
    if callable(prefault):
        return lambda native: prefault(_convert.progress(native))
    _checks.as_bool(prefault, "prefault, where it isn't a function,")
    return None


def check_loading(options: LoadOptions) -> None:
    """Checks what can be checked of the options before there is a file, such as before a long download."""
    executor = options.get("executor", "auto")
    _checks.one_of(executor, "executor", get_args(Executor))
    _native.choose_device(_checks.as_text(options.get("device", "auto"), "device"))
    _reading(options.get("prefault", False))
    for name in ("mmap", "mlock", "rstrip_control_tokens"):
        _checks.as_bool(options.get(name, True), name)
    _window(options.get("sliding_window"))
    chat_format = options.get("chat_format")
    if chat_format is not None:
        _checks.one_of(chat_format, "chat_format", get_args(ChatFormat))
    tokenizer = options.get("tokenizer")
    if tokenizer is not None and not Path(path := _checks.as_path(tokenizer, "tokenizer")).exists():
        raise ModelNotFoundError(f"no such file: {path}; give the path of the model's tokenizer.json")
