"""The demo model's vocabulary: a small SentencePiece-style BPE with byte fallback.

Ids: 0 ``<unk>``, 1 ``<s>``, 2 ``</s>``, 3-258 bytes, then pieces, then the family's control
tokens, then padding. A piece's score is minus its rank; readers merge by score.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

SPACE = "▁"
UNKNOWN, BOS, EOS, FIRST_BYTE, FIRST_PIECE = 0, 1, 2, 3, 259
CONTROL_TOKENS = (
    "<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>",
    "<|placeholder4|>", "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>",
)  # fmt: skip
PADDING = 8
CHARACTERS = SPACE + "".join(map(chr, range(33, 127)))

TYPE_NORMAL, TYPE_UNKNOWN, TYPE_CONTROL, TYPE_UNUSED, TYPE_BYTE = 1, 2, 3, 5, 6


@dataclass
class Tokenizer:
    """Encodes by the SPM rule: join the neighbours whose join has the highest score."""

    tokens: list[str]
    scores: list[float]
    types: list[int]
    ids: dict[str, int] = field(init=False)
    _words: dict[str, list[int]] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.ids = {token: index for index, token in enumerate(self.tokens)}

    def control(self, role: str) -> int:
        """The id of a control token such as ``end`` or ``user``."""
        return self.ids[f"<|{role}|>"]

    def encode(self, text: str) -> list[int]:
        """Ids of one plain text segment, with the dummy space in front."""
        marked = SPACE + text.replace(" ", SPACE)
        ids: list[int] = []
        for word in marked.replace(SPACE, f"\0{SPACE}").split("\0")[1:]:  # no piece crosses a space
            if word not in self._words:
                self._words[word] = self._encode_word(word)
            ids += self._words[word]
        return ids

    def _encode_word(self, word: str) -> list[int]:
        pieces = list(word)
        while True:
            joins = [
                (self.scores[joined], -at)
                for at in range(len(pieces) - 1)
                if (joined := self.ids.get(pieces[at] + pieces[at + 1])) is not None
                and self.types[joined] == TYPE_NORMAL
            ]
            if not joins:
                break
            at = -max(joins)[1]
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        ids: list[int] = []
        for piece in pieces:
            index = self.ids.get(piece)
            ids += [index] if index is not None else [FIRST_BYTE + byte for byte in piece.encode()]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; control tokens give nothing, the first space is dropped."""
        data = b""
        for index in ids:
            if self.types[index] == TYPE_BYTE:
                data += bytes([index - FIRST_BYTE])
            elif self.types[index] == TYPE_NORMAL:
                data += self.tokens[index].replace(SPACE, " ").encode()
        return data.decode(errors="replace").removeprefix(" ")


def train_pieces(texts: Iterable[str], count: int) -> list[str]:
    """``count`` pieces: BPE merges in order of their making, then the single characters.

    Words met once, most of them invented, are left out.
    """
    seen = Counter(
        tuple(word)
        for text in texts
        for word in (SPACE + text.replace(" ", f" {SPACE}").replace("\n", " ")).split()
    )
    words = Counter({word: times for word, times in seen.items() if times > 1})
    merges: list[str] = []
    while len(merges) < count - len(CHARACTERS):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, times in words.items():
            for pair in pairwise(word):
                if _may_be_piece(pair[0] + pair[1]):
                    pairs[pair] += times
        left, right = max(pairs, key=lambda pair: (pairs[pair], pair))
        if left + right not in merges:
            merges.append(left + right)
        words = Counter({_join(word, left, right): times for word, times in words.items()})
    return merges + list(CHARACTERS)


def _may_be_piece(joined: str) -> bool:
    """Letters, or up to two digits, with or without the space in front of them."""
    text = joined.removeprefix(SPACE)
    return text.isascii() and (text.isalpha() or (text.isdigit() and len(text) <= 2))


def _join(word: tuple[str, ...], left: str, right: str) -> tuple[str, ...]:
    if left not in word:
        return word
    joined: list[str] = []
    for piece in word:
        if joined and joined[-1] == left and piece == right:
            joined[-1] = left + right
        else:
            joined.append(piece)
    return tuple(joined)


def build_tokenizer(texts: Iterable[str], size: int) -> Tokenizer:
    """A vocabulary of exactly ``size`` tokens trained on the texts."""
    pieces = train_pieces(texts, size - FIRST_PIECE - len(CONTROL_TOKENS) - PADDING)
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    padding = [f"[PAD{index}]" for index in range(PADDING)]
    tokens = ["<unk>", "<s>", "</s>", *byte_tokens, *pieces, *CONTROL_TOKENS, *padding]
    types = [TYPE_UNKNOWN, TYPE_CONTROL, TYPE_CONTROL] + [TYPE_BYTE] * 256 + [TYPE_NORMAL] * len(pieces)
    types += [TYPE_CONTROL] * len(CONTROL_TOKENS) + [TYPE_UNUSED] * PADDING
    scores = [0.0] * FIRST_PIECE + [-float(rank) for rank in range(len(pieces))]
    scores += [-1000.0] * (size - len(scores))
    return Tokenizer(tokens, scores, types)
