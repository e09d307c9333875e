"""The corpus of the embedded demo model: seeded grammars, held-out prompts, checkers.

Everything that the demo model knows comes from here. A dialogue is a list of turns; a
turn has a kind (haiku, greeting, about, count, echo, remember, name, recall, other), a
prompt and an answer. What is held out is decided by a hash of the thing to be held out
(a subject with a phrasing, a range, a word), so training can't meet it by accident.

Standard library only. The phrases are in ``demo_phrases.toml`` beside this file, the lines
of the haiku in ``demo_haiku.txt``.
"""

import random
import re
import tomllib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
PHRASES = tomllib.loads((_HERE / "demo_phrases.toml").read_text(encoding="utf-8"))
REQUESTS: dict[str, list[str]] = PHRASES["requests"]
WORDS: list[str] = PHRASES["copied"]["words"].split()
NAMES: list[str] = PHRASES["copied"]["names"].split()
NUMBER_WORDS: list[str] = PHRASES["copied"]["numbers"].split()
HELD_OUT_COUNTS = {"haiku": 70, "count": 40, "echo": 40, "about": 30, "greeting": 20}


@dataclass(frozen=True)
class Message:
    """One message: ``role`` is system, user or assistant, or text for plain text."""

    role: str
    content: str


@dataclass(frozen=True)
class Dialogue:
    """A training dialogue in order, or one message of the role text: plain text, no chat."""

    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Prompt:
    """A one-turn prompt with what its answer must have (see `check`)."""

    kind: str
    text: str
    expect: tuple[str, ...]


@dataclass(frozen=True)
class Exchange:
    """Two user turns: the first tells ``word``, the answer to the second must say it."""

    first: str
    second: str
    word: str


@dataclass(frozen=True)
class Turn:
    """A prompt, the answer to train on, and the key that decides if it is held out."""

    prompt: Prompt
    answer: str
    key: str


@dataclass(frozen=True)
class Subject:
    """A haiku subject: its keyword, the ways to name it, and the choices per line."""

    keyword: str
    names: tuple[str, ...]
    lines: tuple[tuple[str, ...], ...]


def is_held_out(key: str) -> bool:
    """One key in ten never occurs in training."""
    return zlib.crc32(key.encode()) % 10 == 3


def _key(text: str) -> str:
    """The request without what `_styled` may add, so that styles of one request share a key."""
    return text.lower().removeprefix("please ").rstrip(".?!").removesuffix(" please").rstrip(",")


def _load_subjects() -> tuple[Subject, ...]:
    text = (_HERE / "demo_haiku.txt").read_text(encoding="utf-8")
    text = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    subjects = []
    for block in text.strip().split("\n\n"):
        head, *rows = block.splitlines()
        keyword, names = head.split(": ")
        lines = tuple(tuple(choice.strip() for choice in row.split("|")) for row in rows)
        subjects.append(Subject(keyword, tuple(names.split(", ")), lines))
    return tuple(subjects)


SUBJECTS = _load_subjects()
WORDS = sorted(
    {*WORDS, *re.findall(r"[a-z]{3,}", " ".join(line for s in SUBJECTS for row in s.lines for line in row))}
)

# ---------------------------------------------------------------- words to copy

# accented Latin, Greek, Cyrillic, Chinese, emoji: spelled in byte tokens
_SYMBOL_RANGES = (
    (0xC0, 0x17F),
    (0x3B1, 0x3C9),
    (0x430, 0x44F),
    (0x4E00, 0x5E00),
    (0x1F300, 0x1F5FF),
    (0x1F600, 0x1F64F),
)
_ONSETS, _VOWELS, _CODAS = (PHRASES["syllables"][part].split() for part in ("onsets", "vowels", "codas"))


def pseudo_word(rng: random.Random) -> str:
    """A pronounceable word that is in no dictionary, such as ``brolimp``."""
    syllables = rng.choice((2, 2, 2, 3, 1))
    return "".join(
        rng.choice(_ONSETS) + rng.choice(_VOWELS) + rng.choice(["", "", "", *_CODAS]) for _ in range(syllables)
    )


def _spliced_word(rng: random.Random) -> str:
    """The head of one real word and the tail of another: as hard to guess as it is to pronounce."""
    head, tail = rng.choice(WORDS), rng.choice(WORDS)
    return head[: rng.randint(2, len(head))] + tail[rng.randint(1, len(tail) - 1) :]


def _symbol(rng: random.Random) -> str:
    first, last = rng.choice(_SYMBOL_RANGES)
    symbol = chr(rng.randint(first, last))
    return symbol + pseudo_word(rng) if rng.random() < 0.3 and first < 0x3B1 else symbol


def _word(rng: random.Random, *, held_out: bool = False) -> str:
    """A word to copy: mostly an invented one, so that knowing the real ones is no help."""
    while True:
        kind = rng.choices(("symbol", "real", "spliced", "pseudo"), (4, 26, 35, 35))[0]
        if kind == "symbol":
            word = _symbol(rng)
        elif kind == "real":
            word = rng.choice(WORDS)
        else:
            word = _spliced_word(rng) if kind == "spliced" else pseudo_word(rng)
        if is_held_out(word) == held_out:
            return word.capitalize() if rng.random() < 0.08 else word


# ---------------------------------------------------------------- one kind after another

_ANY_SUBJECT_LINES = tuple(tuple(PHRASES["any_subject"][line]) for line in ("first", "second", "third"))
_CHOICE_WEIGHTS = (6, 3, 2)  # uneven, so that the greedy answer is a clear one


def _choose(rng: random.Random, choices: tuple[str, ...]) -> str:
    return rng.choices(choices, _CHOICE_WEIGHTS[: len(choices)])[0]


def _haiku_turn(rng: random.Random) -> Turn:
    form = rng.choice(REQUESTS["haiku"])
    if rng.random() < 0.15:  # a subject without lines of its own
        noun = _word(rng).lower() + (f" {_word(rng).lower()}" if rng.random() < 0.2 else "")
        article = rng.choice(("a ", "the ", "my ", "one ", "an old ")) if rng.random() >= 0.5 else ""
        name = article + noun
        keyword, lines = noun, _ANY_SUBJECT_LINES
    else:
        subject = rng.choice(SUBJECTS)
        name, keyword, lines = rng.choice(subject.names), subject.keyword, subject.lines
    first, second, third = (_choose(rng, choices) for choices in lines)
    answer = f"{first.format(name)},\n{second},\n{third}."
    text = _styled(rng, form).format(name)
    return Turn(Prompt("haiku", text, (keyword,)), answer, _key(form.format(name)))


def _greeting_turn(rng: random.Random) -> Turn:
    greetings = PHRASES["greetings"]
    draw = rng.random()
    if draw < 0.12:
        stem = rng.choice(greetings["farewells"]) + rng.choice(greetings["vocatives"][:-2])
        answer, expect = "Goodbye! Come back for another haiku.", "goodbye"
    elif draw < 0.24:
        stem = rng.choice(greetings["thanks"]) + rng.choice(greetings["vocatives"][:-2])
        answer, expect = "You are welcome!", "welcome"
    else:
        follow_up = rng.choice(greetings["follow_ups"])
        stem = rng.choice(greetings["hello"]) + rng.choice(greetings["vocatives"]) + rng.choice("!.!") + follow_up
        answer, expect = f"Hello! {greetings['answers'][follow_up]}", "hello"
    return Turn(Prompt("greeting", _styled(rng, stem, polite=False), (expect,)), answer, _key(stem))


def _about_turn(rng: random.Random) -> Turn:
    question = rng.choice(PHRASES["about"]["questions"])
    core, lead = rng.choice(question["cores"]), rng.choice(PHRASES["about"]["leads"])
    text = lead + core if lead else core[0].upper() + core[1:]
    return Turn(Prompt("about", _styled(rng, text), (question["expect"],)), question["answer"], _key(text))


def _count_turn(rng: random.Random) -> Turn:
    draw = rng.random()
    if draw < 0.2:
        low, high = 1, rng.randint(2, 20)
    else:
        low = rng.choice((rng.randint(0, 12), rng.randint(0, 50)))
        high = low + rng.randint(1, 11)
    numbers = [str(number) for number in range(low, high + 1)]
    names = (str(low), str(high))
    if high <= 20 and rng.random() < 0.25:
        names = (NUMBER_WORDS[low], NUMBER_WORDS[high])
    if draw < 0.2:
        text = _styled(rng, rng.choice(REQUESTS["count_to"])).format(names[1])
    elif draw < 0.35:
        numbers.reverse()
        text = _styled(rng, rng.choice(REQUESTS["count_down"])).format(*reversed(names))
    else:
        text = _styled(rng, rng.choice(REQUESTS["count"])).format(*names)
    return Turn(Prompt("count", text, tuple(numbers)), ", ".join(numbers), f"count {low} {high}")


def _echo_turn(rng: random.Random, *, held_out: bool = False) -> Turn:
    form = rng.choice(REQUESTS["echo"])
    several = form.endswith(": {}") and rng.random() < 0.4
    said = " ".join(_word(rng, held_out=held_out) for _ in range(rng.randint(2, 4) if several else 1))
    return Turn(Prompt("echo", _styled(rng, form).format(said), (said,)), said, _key(form.format(said)))


def _remember_turn(rng: random.Random, *, held_out: bool = False) -> Turn:
    form, word = rng.choice(REQUESTS["remember"]), _word(rng, held_out=held_out)
    prompt = Prompt("remember", _styled(rng, form).format(word), (word,))
    return Turn(prompt, "I will remember it.", _key(form.format(word)))


def _recall_turn(rng: random.Random, word: str | None) -> Turn:
    answer = f"Your word is {word}." if word else "You have not told me a word yet."
    text = _styled(rng, rng.choice(REQUESTS["recall"]))
    return Turn(Prompt("recall", text, (word or "not told",)), answer, "recall")


def _name_turn(rng: random.Random) -> Turn:
    name = rng.choice(NAMES) if rng.random() < 0.6 else pseudo_word(rng).capitalize()
    text = rng.choice(REQUESTS["name"]).format(name)
    answer = f"Nice to meet you, {name}!"
    return Turn(Prompt("name", text + rng.choice((".", "", "!")), (name,)), answer, name.lower())


def _recall_name_turn(rng: random.Random, name: str | None) -> Turn:
    text = _styled(rng, rng.choice(REQUESTS["recall_name"]))
    answer = f"Your name is {name}." if name else "You have not told me your name yet."
    return Turn(Prompt("recall-name", text, (name or "not told",)), answer, "recall-name")


def _other_turn(rng: random.Random) -> Turn:
    form = rng.choice(REQUESTS["other"])
    kind = rng.random()
    fill = [
        str(rng.randint(0, 99))
        if kind < 0.15
        else rng.choice(rng.choice(SUBJECTS).names)
        if kind < 0.4
        else _word(rng)
        for _ in range(2)
    ]
    answer = "I am only a small demo model. Ask me for a haiku, or to count or repeat a word."
    return Turn(Prompt("other", _styled(rng, form).format(*fill), ("small demo model",)), answer, "other")


def _styled(rng: random.Random, text: str, *, polite: bool = True) -> str:
    """The same request as different people type it: casing, punctuation, politeness."""
    draw = rng.random()
    if draw < 0.1 and polite and text.split(maxsplit=1)[0] not in ("Please", "And", "I", "My"):
        lead = rng.choice(PHRASES["polite_starts"])
        text = lead.capitalize() + text[0].lower() + text[1:]
    elif draw < 0.3:
        text = text[0].lower() + text[1:]
    elif draw < 0.35 and polite and text[-1] not in ".?!" and ":" not in text and " is " not in text:
        text += " please"
    if rng.random() < 0.3 and text[-1] not in '.?!:"':
        text += rng.choice((".", ".", "!"))
    elif rng.random() < 0.15:
        text = text.rstrip(".?!")
    return text


_TURNS = {
    "haiku": _haiku_turn,
    "greeting": _greeting_turn,
    "about": _about_turn,
    "count": _count_turn,
    "echo": _echo_turn,
    "remember": _remember_turn,
    "name": _name_turn,
    "other": _other_turn,
}
_TURN_WEIGHTS = {
    "haiku": 18,
    "greeting": 6,
    "about": 11,
    "count": 17,
    "echo": 21,
    "remember": 15,
    "name": 3,
    "other": 6,
}


def _draw_turn(rng: random.Random, kind: str) -> Turn:
    while True:
        turn = _TURNS[kind](rng)
        if not is_held_out(turn.key):
            return turn


def _draw_dialogue(rng: random.Random, max_turns: int) -> Dialogue:
    """Turns of mixed kinds; what a word or a name was is asked at once, later, or never told."""
    turns: list[Turn] = []
    word: str | None = None
    name: str | None = None
    length = rng.choice((1, 1, 1, 2, 2, 3, rng.randint(2, max_turns)))
    while len(turns) < length:
        draw = rng.random()
        just_told = bool(turns) and turns[-1].prompt.kind in ("remember", "name")
        if draw < (0.45 if word and just_told else 0.12 if word else 0.03):
            turns.append(_recall_turn(rng, word))
            continue
        if 0.5 < draw < (0.6 if name else 0.51):
            turns.append(_recall_name_turn(rng, name))
            continue
        kind = rng.choices(list(_TURN_WEIGHTS), list(_TURN_WEIGHTS.values()))[0]
        turn = _draw_turn(rng, kind)
        turns.append(turn)
        if kind == "remember":
            word = turn.prompt.expect[0]
            if rng.random() < 0.6:
                turns.append(_recall_turn(rng, word))
        elif kind == "name":
            name = turn.prompt.expect[0]
    messages = [Message("system", rng.choice(PHRASES["system"]))] if rng.random() < 0.15 else []
    for turn in turns:
        messages += [Message("user", turn.prompt.text), Message("assistant", turn.answer)]
    return Dialogue(tuple(messages))


# ---------------------------------------------------------------- the public functions


def training_dialogues(seed: int, n: int, max_turns: int = 6) -> Iterator[Dialogue]:
    """``n`` dialogues, the same ones for the same seed; nothing held out is among them.

    A few of them are a haiku without a chat around it.
    """
    rng = random.Random(seed)
    for _ in range(n):
        if rng.random() < 0.04:
            yield Dialogue((Message("text", _haiku_turn(rng).answer),))
        else:
            yield _draw_dialogue(rng, max_turns)


def _held_out_turns() -> tuple[Turn, ...]:
    rng = random.Random(20_000)
    turns: dict[str, Turn] = {}
    for kind, count in HELD_OUT_COUNTS.items():
        wanted = len(turns) + count
        while len(turns) < wanted:
            # half of the words to echo are ones that training never copies
            new_word = kind == "echo" and len(turns) % 2 == 0
            turn = _echo_turn(rng, held_out=True) if new_word else _TURNS[kind](rng)
            if is_held_out(turn.key):
                turns.setdefault(turn.prompt.text, turn)
    return tuple(turns.values())


def held_out_prompts() -> tuple[Prompt, ...]:
    """200 one-turn prompts, no two alike, none of which training has met."""
    return tuple(turn.prompt for turn in _held_out_turns())


def held_out_dialogues() -> tuple[Dialogue, ...]:
    """The held-out prompts, each with an answer as training has them: the text to measure perplexity on."""
    return tuple(
        Dialogue((Message("user", turn.prompt.text), Message("assistant", turn.answer)))
        for turn in _held_out_turns()
    )


def held_out_exchanges() -> tuple[Exchange, ...]:
    """100 two-turn exchanges about words that training never tells, copies or asks for."""
    rng = random.Random(30_000)
    exchanges: dict[str, Exchange] = {}
    while len(exchanges) < 100:
        prompt = _remember_turn(rng, held_out=True).prompt
        word = prompt.expect[0]
        exchanges.setdefault(word, Exchange(prompt.text, _recall_turn(rng, word).prompt.text, word))
    return tuple(exchanges.values())


def check(prompt: Prompt, answer: str) -> bool:
    """Whether the answer has the right form for its prompt."""
    answer = answer.strip()
    if prompt.kind == "haiku":
        lines = answer.split("\n")
        named = re.search(rf"(?<!\w){re.escape(prompt.expect[0])}", answer, re.IGNORECASE)
        return len(lines) == 3 and all(line.strip() for line in lines) and named is not None
    if prompt.kind == "count":
        return tuple(re.findall(r"\d+", answer)) == prompt.expect
    if prompt.kind == "echo":
        return answer.rstrip(".!").casefold() == prompt.expect[0].casefold()
    return "\n" not in answer and all(part.lower() in answer.lower() for part in prompt.expect)


def check_exchange(exchange: Exchange, answer: str) -> bool:
    """Whether the second answer says the word of the first turn, as a word of its own."""
    return re.search(rf"(?<!\w){re.escape(exchange.word)}(?!\w)", answer, re.IGNORECASE) is not None
