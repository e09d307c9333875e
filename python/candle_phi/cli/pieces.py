"""What each token of a prompt stands for, so that all of it can be seen."""

from collections.abc import Iterator, Sequence

from candle_phi import Phi3Session

# What stands in a text for bytes that are no character, or not yet.
_INCOMPLETE = "\ufffd"
# As many tokens have the bytes of a character at the most.
_MOST = 4


def of(session: Phi3Session, ids: Sequence[int]) -> Iterator[str]:
    """The pieces of text that tokens stand for, quoted.

    A text loses the space at its beginning, so a token is read behind another one: alone it does not show its own.
    Tokens that have a character between them are its bytes, or its parts.

    Args:
        session: A session with the tokenizer.
        ids: The tokens.

    Yields:
        The piece of each.
    """
    texts = ((token_id, session.detokenize([token_id])) for token_id in ids)
    anchor, before = next(
        ((token_id, text) for token_id, text in texts if text and _INCOMPLETE not in text), (None, "")
    )

    def behind(tokens: Sequence[int]) -> str:
        return session.detokenize([*([] if anchor is None else [anchor]), *tokens]).removeprefix(before)

    index = 0
    while index < len(ids):
        runs = (ids[index : index + length] for length in range(1, _MOST + 1))
        run = next((run for run in runs if _INCOMPLETE not in behind(run)), ids[index : index + 1])
        yield from _parts(behind(run), len(run))
        index += len(run)


def _parts(text: str, tokens: int) -> Iterator[str]:
    """One text, as the pieces of its tokens."""
    bytes_ = text.encode()
    if tokens == 1:
        yield repr(text)
    elif len(bytes_) == tokens:
        yield from (f"{bytes([byte])!r} of {text!r}" for byte in bytes_)
    else:
        yield from (f"part {number} of {tokens} of {text!r}" for number in range(1, tokens + 1))
