"""A model, which any number of sessions and threads can share."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self, Unpack

from candle_phi import _checks, _convert, _native, _options, hub
from candle_phi._foreign import ForeignAttributes
from candle_phi._unpicklable import Unpicklable
from candle_phi.config import OF_A_GENERATION, LoadOptions
from candle_phi.exceptions import InputTypeError, ModelNotFoundError
from candle_phi.messages import messages_of
from candle_phi.types import MessageLike, ModelInfo, Progress

__all__ = ["Phi3Model", "inspect_model"]

_DEMO = Path(__file__).parent / "demo" / "candle-phi-demo.gguf"


class Phi3Model(ForeignAttributes, Unpicklable):
    """The weights, the tokenizer and the chat format of a GGUF file.

    A model is immutable. Sessions on any thread share it, and its memory is freed with the last of them.

    Args:
        path: The GGUF file.
        **options: Options for loading, as in `candle_phi.config.LoadOptions` and the table of options. With "auto"
            as device, the best of those that were compiled in and that the machine has is used; `device_reason`
            tells why. A mapped file (``mmap``) must not be changed or truncated while it is in use. ``prefault``
            can be a function that is told about the progress, as for a download. Systems limit how much memory
            ``mlock`` may lock (``ulimit -l``).

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

    @_options.spelled_out(LoadOptions.__annotations__)
    @_checks.suggests_keywords_and(LoadOptions.__annotations__, OF_A_GENERATION)
    def __init__(self, path: str | os.PathLike[str], **options: Unpack[LoadOptions]) -> None:
        loading = checked_loading(options)
        file = hub.model_path(path, "open it with from_pretrained({!r})")
        self._engine = _native.Model(file, loading, _reading(loading["prefault"]))
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
            **options: Options for loading; see `Phi3Model`.

        Returns:
            The model.

        Raises:
            DownloadError: The download failed, the hub does not have the file, or offline mode forbids it.
            ModelLoadError: The file cannot be loaded.
            InvalidOptionError: There is no model of that name, or an option is out of its range.
            TypeError: An argument is of the wrong type, or the option does not exist.
        """
        checked_loading(options)
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
            **options: Options for loading; see `Phi3Model`.

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


def _reading(prefault: object) -> Callable[[_native.Progress], object] | None:
    """What the native module tells how much of the file was read."""
    return (lambda native: prefault(_convert.progress(native))) if callable(prefault) else None


def checked_loading(options: LoadOptions) -> dict[str, Any]:
    """Checks what can be checked before there is a file, such as before a long download.

    Args:
        options: The options that were given.

    Returns:
        All options for loading.

    Raises:
        InvalidOptionError: A value is out of its range.
        DeviceError: The device does not exist or was not compiled in.
        ModelNotFoundError: There is no such tokenizer.json.
        TypeError: A value is of the wrong type.
    """
    given = dict[str, object](options)
    loading = {name: _options.value(name, given.get(name)) for name in _options.names("loading")}
    _native.choose_device(loading["device"])
    tokenizer = loading["tokenizer"]
    if tokenizer is not None and not Path(tokenizer).exists():
        raise ModelNotFoundError(f"no such file: {tokenizer}; give the path of the model's tokenizer.json")
    return loading
