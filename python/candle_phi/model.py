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

    A model is immutable. Sessions on any thread can share it. Its memory is freed when no session and no variable
    refers to it any more.

    Args:
        path: The GGUF file.
        **options: Options for loading; see `candle_phi.config.LoadOptions` and the table of options. With
            ``device="auto"``, the best device that was compiled in and that the machine has is used;
            `device_reason` tells why. With ``mmap``, do not change or truncate the file while the model is in use.
            ``prefault`` can be a function, which is called with each `Progress` as for a download. The operating
            system limits how much memory ``mlock`` can lock (``ulimit -l``).

    Raises:
        ModelNotFoundError: The file does not exist.
        InvalidModelError: The file is damaged, truncated or not a GGUF file.
        UnsupportedModelError: The file has an architecture, tensor type or tokenizer that is not supported.
        DeviceError: The device does not exist, was not compiled in, or has too little memory for the model.
        InvalidOptionError: An option is out of its range.
        TypeError: An argument is of the wrong type, or the option does not exist.
    """

    __slots__ = ("__weakref__", "_engine", "_info")

    _instead = (
        "share it within the process, and load it in each other process; processes that map the same file share "
        "its memory"
    )

    @_options.spelled_out(LoadOptions.__annotations__)
    @_checks.suggests_keywords_and(LoadOptions.__annotations__, OF_A_GENERATION)
    def __init__(self, path: str | os.PathLike[str], **options: Unpack[LoadOptions]) -> None:
        loading = checked_loading(options)
        file = hub.model_path(path, "open it with from_pretrained({!r})")
        self._engine = _native.Phi3Model(file, loading, _reading(loading["prefault"]))
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
        """Load a model from the Hugging Face hub, or from the local cache.

        Args:
            name_or_repo: A short name (see `named_models`), or a repository "owner/name".
            filename: The file in the repository. Required if the repository has no short name.
            quantization: The quantization of a named model, such as "Q5_K_M". None: the first one listed.
            revision: The branch, tag or commit. None: "main".
            cache_dir: The cache directory. None: the cache of Hugging Face, which HF_HOME and HF_HUB_CACHE set.
            token: The access token. None: the token in HF_TOKEN, or the one that ``hf auth login`` stored.
            local_files_only: Use only the cache, and open no connection.
            progress: How to report the progress of a download. A function: called with each `Progress`. True: a
                bar on stderr. False: no report. None: a bar if stderr is a terminal.
            **options: Options for loading; see `Phi3Model`.

        Returns:
            The model.

        Raises:
            DownloadError: The download failed, the hub does not have the file, or offline mode forbids the
                download.
            ModelLoadError: The file cannot be loaded.
            InvalidOptionError: The model name is unknown, or an option is out of its range.
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
        """Load the embedded demo model, a toy for trying the package without a download.

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
        """The metadata of the model file."""
        return self._info

    @property
    def path(self) -> Path:
        """The path of the model file."""
        return Path(self._engine.path)

    @property
    def device(self) -> str:
        """The device that the model runs on, such as "cpu" or "cuda:0"."""
        return self._engine.device

    @property
    def device_reason(self) -> str:
        """Why this device was chosen: a description of it and, with "auto", why the others were not."""
        return self._engine.device_reason

    @property
    def executor(self) -> str:
        """The executor that runs the model: "kernels" or "candle"."""
        return self._engine.executor

    def tokenize(self, text: str, *, add_bos: bool = False, parse_special: bool = False) -> list[int]:
        """Convert text to token ids.

        Args:
            text: The text.
            add_bos: Prepend the BOS token, unless the text already begins with it.
            parse_special: Convert "<|user|>" and the like to control tokens. Otherwise they are plain text.

        Returns:
            The token ids.

        Raises:
            InvalidOptionError: The text has a lone surrogate.
            InputTypeError: The text is not a str.
        """
        return self._engine.encode(
            _checks.as_text(text, "text", InputTypeError),
            _checks.as_bool(add_bos, "add_bos"),
            _checks.as_bool(parse_special, "parse_special"),
        )

    def detokenize(self, tokens: Sequence[int], *, skip_special: bool = False) -> str:
        """Convert token ids to text.

        Args:
            tokens: The token ids.
            skip_special: Omit control tokens.

        Returns:
            The text. Bytes that are not valid UTF-8 become U+FFFD.

        Raises:
            InvalidOptionError: A number is not a token id of this model.
            InputTypeError: ``tokens`` is not a sequence of token ids.
        """
        return self._engine.decode(
            _checks.input_tokens(tokens, "tokens", self._engine.vocabulary_size),
            _checks.as_bool(skip_special, "skip_special"),
        )

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text.

        Args:
            text: The text. Control tokens in it are plain text.

        Returns:
            The number of tokens.

        Raises:
            InvalidOptionError: The text has a lone surrogate.
            InputTypeError: The text is not a str.
        """
        return len(self.tokenize(text))

    def render_chat(
        self,
        messages: str | Sequence[MessageLike],
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
    ) -> str:
        """Render the chat prompt for the given messages as text, for reading.

        The model reads the result of `render_chat_tokens`. The two can differ: if a message contains the text of a
        control token, only the token ids tell that text from the control token.

        Args:
            messages: The messages. A text is a single user message.
            add_generation_prompt: Append the beginning of the assistant's turn.
            continue_final_message: Leave the last message open, so that the model continues it. Requires
                ``add_generation_prompt=False``.

        Returns:
            The prompt.

        Raises:
            UnsupportedModelError: The model has no known chat format.
            InvalidOptionError: ``messages`` is empty, or the chat format does not allow the order of the roles.
            InputTypeError: ``messages`` is neither a text nor a sequence of messages.
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
        """Render the chat prompt for the given messages as token ids.

        The content of a message never becomes a control token.

        Args:
            messages: The messages. A text is a single user message.
            add_generation_prompt: Append the beginning of the assistant's turn.
            continue_final_message: Leave the last message open, so that the model continues it. Requires
                ``add_generation_prompt=False``.

        Returns:
            The token ids.

        Raises:
            UnsupportedModelError: The model has no known chat format.
            InvalidOptionError: ``messages`` is empty, or the chat format does not allow the order of the roles.
            InputTypeError: ``messages`` is neither a text nor a sequence of messages.
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
    """Read the metadata of a model file, without loading its weights.

    Args:
        path: The GGUF file.

    Returns:
        The metadata.

    Raises:
        ModelNotFoundError: The file does not exist.
        InvalidModelError: The file is damaged, truncated or not a GGUF file.
        UnsupportedModelError: The file has an architecture that is not supported.
        InvalidOptionError: The path is empty.
        TypeError: ``path`` is not a path.
    """
    return _convert.model_info(_native.inspect(hub.model_path(path, hub.DOWNLOAD)))


def _reading(prefault: object) -> Callable[[_native.Progress], object] | None:
    """Return the function that the native module calls with the progress of reading the file."""
    return (lambda native: prefault(_convert.progress(native))) if callable(prefault) else None


def checked_loading(options: LoadOptions) -> dict[str, Any]:
    """Check the options for loading as far as possible without the file, such as before a long download.

    Args:
        options: The options of the call.

    Returns:
        All options for loading.

    Raises:
        InvalidOptionError: A value is out of its range.
        DeviceError: The device does not exist or was not compiled in.
        ModelNotFoundError: The tokenizer.json does not exist.
        TypeError: A value is of the wrong type.
    """
    given = dict[str, object](options)
    loading = {name: _options.value(name, given.get(name)) for name in _options.names("loading")}
    _native.choose_device(loading["device"])
    tokenizer = loading["tokenizer"]
    if tokenizer is not None and not Path(tokenizer).exists():
        raise ModelNotFoundError(f"no such file: {tokenizer}; give the path of the model's tokenizer.json")
    return loading
