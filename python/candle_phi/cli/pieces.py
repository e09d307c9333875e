"""The text of each token of a prompt, with all characters visible."""

from collections.abc import Iterator, Sequence

from candle_phi import Phi3Session

# The replacement character, for bytes that are not or not yet a complete character.
_INCOMPLETE = "\ufffd"
# The most tokens that the bytes of a character can have.
_MOST = 4


def of(session: Phi3Session, ids: Sequence[int]) -> Iterator[str]:
    """Return the text of each token, quoted.

    Decoding removes a space at the beginning of a text, so each token is decoded after another one. If several
    tokens share one character, their pieces are its bytes or its parts.

    Args:
        session: A session with the tokenizer.
        ids: The tokens.

    Yields:
        The piece of each token.
    """
    texts = ((token_id, session.detokenize([token_id])) for token_id in ids)
    anchor, before = next(
        ((token_id, text) for token_id, text in texts if text and _INCOMPLETE not in text), (None, "")
    )

    def decoded(tokens: Sequence[int]) -> str:
        return session.detokenize([*([] if anchor is None else [anchor]), *tokens]).removeprefix(before)

    index = 0
    while index < len(ids):
        runs = (ids[index : index + length] for length in range(1, _MOST + 1))
        run = next((run for run in runs if _INCOMPLETE not in decoded(run)), ids[index : index + 1])
        yield from _parts(decoded(run), len(run))
        index += len(run)


def _parts(text: str, tokens: int) -> Iterator[str]:
    """Split one text into the pieces of its tokens."""
    bytes_ = text.encode()
    if tokens == 1:
        yield repr(text)
    elif len(bytes_) == tokens:
        yield from (f"{bytes([byte])!r} of {text!r}" for byte in bytes_)
    else:
        yield from (f"part {number} of {tokens} of {text!r}" for number in range(1, tokens + 1))
