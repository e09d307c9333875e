"""Addresses without their secrets, for reports and status lines."""

import re

# The user and the password before a host, also without a scheme; the query, which may be signed; the fragment.
_SECRETS = re.compile(r"(?s)^([\w+.-]*://)?.*@|[?#].*")


def without_secrets(address: str) -> str:
    """Return an address without user, password, query and fragment."""
    return _SECRETS.sub(r"\1", address)


def printable(text: str) -> str:
    """Return a text, escaped if a terminal would obey one of its characters."""
    return text if text.isprintable() else ascii(text)[1:-1]
