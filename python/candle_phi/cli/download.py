"""`candle-phi download`: fetch a model into the hub cache."""

from typing import Annotated

import typer

import candle_phi
from candle_phi.cli import options


def download(
    name: Annotated[str, typer.Argument(help="A named model ('candle-phi models'), or OWNER/REPO with --file.")],
    *,
    quantization: options.Quantization = None,
    file: options.File = None,
    revision: options.Revision = None,
    cache_dir: options.CacheDir = None,
    token: options.Token = None,
    offline: options.Offline = False,
    debug: options.Debug = False,
) -> None:
    """Download a model, and print the path of its file."""
    del debug
    # On a terminal's stderr the package draws a bar by itself.
    path = candle_phi.download(
        name,
        file,
        quantization=quantization,
        revision=revision,
        cache_dir=cache_dir,
        token=token,
        local_files_only=offline,
    )
    print(path)
