"""`candle-phi download`: download a model into the hub cache."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

import candle_phi
from candle_phi import ModelNotFoundError, cached_models
from candle_phi.cli import complete, console, options


def download(
    name: Annotated[
        str,
        typer.Argument(
            help="A named model ('candle-phi models'), OWNER/REPO:QUANTIZATION, or OWNER/REPO with --file.",
            autocompletion=complete.names,
        ),
    ],
    *,
    quantization: options.Quantization = None,
    file: options.File = None,
    revision: options.Revision = None,
    cache_dir: options.CacheDir = None,
    token: options.Token = None,
    offline: options.Offline = False,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Download a model, and print the path of its file."""
    del debug
    # If stderr is a terminal, the package shows a progress bar.
    path = candle_phi.download(
        name,
        file,
        quantization=quantization,
        revision=revision,
        cache_dir=cache_dir,
        token=token,
        local_files_only=offline,
    )
    if not as_json:
        console.write(f"{path}\n")
        return
    model = next((model for model in cached_models(cache_dir) if model.path == path), None)
    if model is None:
        raise ModelNotFoundError(f"{path} was removed from the cache in the meantime; download it again")
    print(json.dumps(asdict(model), indent=2, default=str))
