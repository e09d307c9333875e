"""Addresses of the documentation pages that messages name; a wheel does not contain the pages."""

BASE = "https://github.com/candle-phi/candle-phi/blob/main/docs/"
"""The folder of the documentation, as `[project.urls]` in pyproject.toml has it."""


def page(name: str) -> str:
    """Return the address of a page, such as "guides/logging.md"."""
    return BASE + name
