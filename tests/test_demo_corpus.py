"""The corpus of the embedded model: seeded, with the held-out part held out, and checkers that can fail."""

from collections import Counter

import pytest


def test_the_same_seed_gives_the_same_dialogues(corpus):
    first = list(corpus.training_dialogues(seed=1, n=200))
    assert first == list(corpus.training_dialogues(seed=1, n=200))
    assert first != list(corpus.training_dialogues(seed=2, n=200))


def test_every_haiku_line_can_name_its_subject(corpus):
    assert "hockey" in {subject.keyword for subject in corpus.SUBJECTS}
    for subject in corpus.SUBJECTS:
        assert [len(choices) for choices in subject.lines] == [3, 3, 3], subject.keyword
        for first_line in subject.lines[0]:
            assert subject.keyword in first_line.lower()


def test_training_meets_nothing_that_is_held_out(corpus):
    said = {message.content for d in corpus.training_dialogues(seed=3, n=20_000) for message in d.messages}
    prompts = corpus.held_out_prompts()
    exchanges = corpus.held_out_exchanges()
    assert Counter(prompt.kind for prompt in prompts) == corpus.HELD_OUT_COUNTS
    assert len({prompt.text for prompt in prompts}) == 200
    assert len({exchange.word for exchange in exchanges}) == 100
    assert not said & {prompt.text for prompt in prompts}
    assert not said & {exchange.first for exchange in exchanges}
    words = {exchange.word.lower() for exchange in exchanges}
    repeated = {text.removeprefix("Your word is ").rstrip(".").lower() for text in said if text.startswith("Your")}
    assert not repeated & words


def test_held_out_dialogues_are_the_held_out_prompts_with_right_answers(corpus):
    prompts, dialogues = corpus.held_out_prompts(), corpus.held_out_dialogues()
    for prompt, dialogue in zip(prompts, dialogues, strict=True):
        user, assistant = dialogue.messages
        assert (user.role, user.content, assistant.role) == ("user", prompt.text, "assistant")
        assert corpus.check(prompt, assistant.content)


@pytest.mark.parametrize(
    ("kind", "expect", "right", "wrong"),
    [
        ("haiku", ("hockey",), "Ice hockey at dusk,\na,\nb.", "Snow falls,\na,\nb."),
        ("haiku", ("hockey",), "Hockey,\na,\nb.", "Hockey,\na b."),
        ("haiku", ("cat",), "A cat,\na,\nb.", "The locator,\na,\nb."),
        ("count", ("3", "4", "5"), "3, 4, 5", "3, 4, 5, 6"),
        ("count", ("5", "4"), "5, 4", "4, 5"),
        ("echo", ("lantern",), "lantern.", "lanterns"),
        ("about", ("Rust",), "The engine is in Rust.", "It is in C."),
        ("greeting", ("hello",), "Hello!", "Goodbye!"),
    ],
)
def test_the_checkers_tell_right_from_wrong(corpus, kind, expect, right, wrong):
    prompt = corpus.Prompt(kind, "", expect)
    assert corpus.check(prompt, right)
    assert not corpus.check(prompt, wrong)


def test_an_exchange_wants_the_word_itself(corpus):
    exchange = corpus.Exchange("My word is lantern.", "What was my word?", "lantern")
    assert corpus.check_exchange(exchange, "Your word is lantern.")
    assert not corpus.check_exchange(exchange, "Your word is lanterns.")


def test_a_told_word_is_asked_for(corpus):
    dialogues = corpus.training_dialogues(seed=4, n=2000)
    recalls = [
        message.content for d in dialogues for message in d.messages if message.content.startswith("Your word")
    ]
    assert len(recalls) > 100
