"""The embedded model answers as its model card says: a sample of what `tools/train_demo.py` measures."""


def ask(session, *texts):
    session.reset()
    return [session.chat(text, temperature=0.0, max_tokens=100) for text in texts]


def test_it_answers_in_the_right_form_and_ends_by_itself(session, corpus):
    prompts = corpus.held_out_prompts()[::4]
    answers = [ask(session, prompt.text)[0] for prompt in prompts]
    right = [corpus.check(prompt, answer.text) for prompt, answer in zip(prompts, answers, strict=True)]
    assert sum(right) >= 0.9 * len(prompts)
    assert all(answer.finish_reason == "stop" for answer in answers)


def test_it_repeats_the_word_of_the_first_turn(session, corpus):
    exchanges = corpus.held_out_exchanges()[::4]
    answers = [ask(session, exchange.first, exchange.second)[1] for exchange in exchanges]
    right = [corpus.check_exchange(*pair) for pair in zip(exchanges, (a.text for a in answers), strict=True)]
    assert sum(right) >= 0.9 * len(exchanges)
    assert all(answer.usage.cached_tokens > 0 for answer in answers)


def test_a_haiku_about_ice_hockey_has_three_lines_and_speaks_of_it(session):
    answer = ask(session, "Write a haiku about ice hockey")[0].text
    assert len(answer.splitlines()) == 3
    assert "hockey" in answer.lower()
