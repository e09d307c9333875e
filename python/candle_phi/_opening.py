"""The options of a session, and the model that it loads or shares."""

import os
from typing import cast

from candle_phi import _options
from candle_phi.config import LoadOptions, SessionConfig, SessionOptions
from candle_phi.model import Phi3Model

OPTIONS = tuple(SessionOptions.__annotations__)


def split_options(options: SessionOptions) -> tuple[LoadOptions, SessionOptions]:
    """Split the options into those for loading a model and those for a session on it."""
    loading = {name: value for name, value in options.items() if name in _options.names("loading")}
    own = {name: value for name, value in options.items() if name not in loading}
    return cast("LoadOptions", loading), cast("SessionOptions", own)


def session_config(config: SessionConfig | None = None, **options: object) -> SessionConfig:
    """Return ``config`` with the options that are not None on top of it."""
    given = {name: value for name, value in options.items() if value is not None}
    if config is None:
        config = SessionConfig()
    elif not isinstance(config, SessionConfig):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"config must be a SessionConfig, got {type(config).__name__}")
    return config.replace(**given)


def model_of(path: str | os.PathLike[str] | None, model: Phi3Model | None, loading: LoadOptions) -> Phi3Model:
    """Return the model of a session: the given one, or one that is loaded from ``path``."""
    if model is None:
        if path is None:
            raise TypeError(
                "Phi3Session() needs a path or a model, got neither; pass the path of a GGUF file, or call "
                "Phi3Session.from_pretrained() for a model from the hub or Phi3Session.demo() for the demo model",
            )
        if isinstance(cast("object", path), Phi3Model):
            raise TypeError("path must be a str or an os.PathLike, got Phi3Model; pass a loaded model as model")
        return Phi3Model(path, **loading)
    if path is not None:
        raise TypeError("Phi3Session() needs a path or a model, not both; leave one of them out")
    if not isinstance(model, Phi3Model):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise TypeError(f"model must be a Phi3Model, got {type(model).__name__}; pass a file as path")
    given = loading.items()
    set_here = sorted(name for name, value in given if value not in (None, _options.OPTIONS[name].default))
    if set_here:
        are = "is" if len(set_here) == 1 else "are"
        raise TypeError(
            f"{', '.join(set_here)} {are} for loading a model, but the given model is already loaded; pass it to "
            "Phi3Model()"
        )
    return model
