"""Locally typical sampling against the formula of transformers' `TypicalLogitsWarper`, in numpy."""

import numpy as np
import pytest

from candle_phi import GenerationConfig

PROMPT = "Write a haiku about ice hockey"
DRAWS = 400


def log_softmax(logits):
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def typical(logits, mass):
    """Which tokens are kept. (vocabulary,) -> (vocabulary,) of bool"""
    log_probabilities = log_softmax(logits)
    probabilities = np.exp(log_probabilities)
    possible = probabilities > 0
    entropy = -(probabilities[possible] * log_probabilities[possible]).sum()
    distances = np.abs(-log_probabilities - entropy)
    order = np.argsort(distances, kind="stable")
    last = min((np.cumsum(probabilities[order]) < mass).sum(), len(order) - 1)
    return distances <= distances[order[last]]


@pytest.mark.parametrize("temperature", [0.8, 1.5])
@pytest.mark.parametrize("top_k", [None, 5])
@pytest.mark.parametrize("typical_p", [0.1, 0.4, 0.8, 1.0])
def test_only_typical_tokens_are_drawn(session, typical_p, top_k, temperature):
    ids = session.model.render_chat_tokens(PROMPT)
    logits = np.asarray(session.logits(ids), np.float64) / temperature
    if top_k is not None:
        logits[np.argsort(-logits, kind="stable")[top_k:]] = -np.inf
    kept = typical(logits, typical_p) & np.isfinite(logits) if typical_p < 1 else np.isfinite(logits)
    config = GenerationConfig(
        max_tokens=1, ignore_eos=True, seed=1, typical_p=typical_p, top_k=top_k, temperature=temperature
    )
    drawn = {completion.tokens[0] for completion in session.generate_many(ids, DRAWS, config)}
    assert all(kept[token] for token in drawn)
    # What is kept is drawn: the chance that a token of this share is never drawn is below 1e-8.
    shares = np.where(kept, np.exp(logits - logits.max()), 0)
    likely = np.flatnonzero(shares / shares.sum() > 0.05)
    assert set(likely.tolist()) <= drawn


def test_typical_sampling_can_leave_the_most_likely_token_out(session):
    logits = np.full(session.model.info.vocabulary_size, -np.inf)
    logits[[10, 11, 12]] = np.log([0.6, 0.3, 0.1])
    assert np.flatnonzero(typical(logits, 0.2)).tolist() == [11]

    def set_logits(_tokens, buffer):
        np.frombuffer(buffer, np.float32)[:] = logits

    config = GenerationConfig(max_tokens=20, ignore_eos=True, seed=1, typical_p=0.2, logits_processor=set_logits)
    assert set(session.generate(PROMPT, config).tokens) == {11}


def test_greedy_sampling_ignores_it(session):
    greedy = GenerationConfig.greedy(max_tokens=8)
    assert (
        session.chat(PROMPT, greedy, typical_p=0.1).tokens
        == session.chat([{"role": "user", "content": PROMPT}], greedy).tokens
    )
