"""What a session is opened with: its options, and a model that is loaded or shared."""

import os
from typing import cast

from candle_phi import _options
from candle_phi.config import LoadOptions, SessionConfig, SessionOptions
from candle_phi.model import Phi3Model

OPTIONS = tuple(SessionOptions.__annotations__)


def split_options(options: SessionOptions) -> tuple[LoadOptions, SessionOptions]:
    """The options for loading a model, and those for a session on it."""
    loading = {name: value for name, value in options.items() if name in _options.names("loading")}
    own = {name: value for name, value in options.items() if name not in loading}
    return cast("LoadOptions", loading), cast("SessionOptions", own)


def session_config(config: SessionConfig | None = None, **options: object) -> SessionConfig:
    """A session's configuration: ``config``, with the options that are not None on top."""
    given = {name: value for name, value in options.items() if value is not None}
    if config is None:
        config = SessionConfig()
    elif not isinstance(config, SessionConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"config must be a SessionConfig, got {type(config).__name__}")
    return config.replace(**given)


def model_of(path: str | os.PathLike[str] | None, model: Phi3Model | None, loading: LoadOptions) -> Phi3Model:
    """The model of a session: loaded from ``path``, or the one that is given."""
    if model is None:
        if path is None:
            raise TypeError(
                "Phi3Session() needs the path of a GGUF file or a model; Phi3Session.from_pretrained() takes one "
                "from the hub, Phi3Session.demo() the embedded one",
            )
        if isinstance(cast("object", path), Phi3Model):
            raise TypeError("path must be a str or an os.PathLike, got Phi3Model: give a loaded model as model")
        return Phi3Model(path, **loading)
    if path is not None:
        raise TypeError("Phi3Session() takes a path or a model, not both")
    if not isinstance(model, Phi3Model):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"model must be a Phi3Model, got {type(model).__name__}; a file is given as path")
    given = loading.items()
    set_here = sorted(name for name, value in given if value not in (None, _options.OPTIONS[name].default))
    if set_here:
        raise TypeError(
            f"{', '.join(set_here)} is for loading a model, and this one is loaded: give it to Phi3Model()"
        )
    return model
