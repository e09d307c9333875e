"""A conversation goes into a file and comes out of it as it was, or is refused with the reason."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from candle_phi import (
    ConversationFileError,
    ConversationNotFoundError,
    GenerationConfig,
    InvalidOptionError,
    Message,
    Phi3Model,
    Phi3Session,
    SavedConversationError,
    SessionBusyError,
    SessionClosedError,
)
from messages import mentions
from test_split import split
from tiny_gguf import TinyPhi3, random_ids, write

GREEDY = GenerationConfig.greedy(max_tokens=24)
LONG = GenerationConfig.greedy(max_tokens=24, ignore_eos=True)
HAIKU = "Write a haiku about ice hockey"
WHO = "Who are you?"
ORIGINAL_CONTEXT = 64
DAMAGES = pytest.mark.thread_unsafe(reason="it changes the file that the threads share")

# 32 wide heads, so that q8_0 can hold them.
WINDOWED = TinyPhi3(head_dim=32, sliding_window=40)
LONG_ROPE = TinyPhi3(
    head_dim=32,
    rope_factors_short=tuple(1 + 0.1 * i for i in range(16)),
    rope_factors_long=tuple(1.0 + 2 * i for i in range(16)),
    original_context_length=ORIGINAL_CONTEXT,
    attn_factor=1.19,
)
KINDS = ["demo", "windowed", "long rope"]
WAYS = [("kernels", "f16"), ("kernels", "f32"), ("kernels", "q8_0"), ("candle", "f16"), ("candle", "f32")]


@pytest.fixture(scope="module")
def paths(tmp_path_factory, model) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "demo": model.path,
        "windowed": write(folder / "windowed.gguf", WINDOWED),
        "long rope": write(folder / "long.gguf", LONG_ROPE),
    }


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "talk.phi"


def turns(session: Phi3Session) -> None:
    session.chat(HAIKU, LONG)
    session.chat(WHO, LONG)


def head_of(file: Path) -> dict[str, object]:
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(16)[12:], "little")
        head: dict[str, object] = json.loads(opened.read(length))
    return head


def reason(session: Phi3Session, file: Path) -> str:
    """Why a session refuses a file; it stays as it was."""
    before = session.messages, session.tokens
    with pytest.raises(SavedConversationError, match=file.name) as caught:
        session.load(file)
    assert (session.messages, session.tokens) == before
    return caught.value.reason


@pytest.mark.parametrize(("executor", "kv_dtype"), WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_session_answers_as_the_saved_one_and_computes_only_what_is_new(
    paths, kind, executor, kv_dtype, file
):
    model = Phi3Model(paths[kind], executor=executor)
    with (
        Phi3Session(model=model, kv_dtype=kv_dtype) as saved,
        Phi3Session(model=model, kv_dtype=kv_dtype) as loaded,
    ):
        turns(saved)
        saved.save(file)
        loaded.load(file)
        assert (loaded.messages, loaded.tokens) == (saved.messages, saved.tokens)
        expected = saved.chat("Hello", LONG)
        found = loaded.chat("Hello", LONG)
        assert found.tokens == expected.tokens
        assert found.usage == expected.usage
        assert found.usage.recomputed_tokens == 0
        # All that was said before is in the cache, but for the last token of the answer.
        assert found.usage.prompt_tokens - found.usage.cached_tokens < 20
        assert loaded.rewind(2) == saved.rewind(2)
        assert loaded.chat(WHO, LONG).tokens == saved.chat(WHO, LONG).tokens
    head = head_of(file)
    assert head["kv_dtype"] == kv_dtype
    # The conversation is longer than the original context.
    assert head["rope_factors"] == ("long" if kind == "long rope" else "short")


@pytest.mark.parametrize("executor", ["kernels", "candle"])
def test_what_a_window_let_go_is_not_in_the_file(paths, file, executor):
    model = Phi3Model(paths["windowed"], executor=executor)
    ids = random_ids(400, WINDOWED)
    with Phi3Session(model=model, prefill_chunk=50) as saved, Phi3Session(model=model) as loaded:
        saved.generate(ids, LONG)
        saved.save(file)
        assert head_of(file)["first_position"] >= 64
        assert file.stat().st_size < model.info.kv_cache_bytes(380)
        loaded.load(file)
        expected, found = (each.generate([*ids, 5, 6], LONG) for each in (saved, loaded))
        assert found.tokens == expected.tokens
        assert found.usage == expected.usage
        assert found.usage.cached_tokens == 400
        # Back to before what was let go: computed again, and the same.
        with Phi3Session(model=model) as fresh:
            assert loaded.generate(ids[:50], LONG).tokens == fresh.generate(ids[:50], LONG).tokens


def test_keys_of_other_factors_are_computed_again(paths, file):
    model = Phi3Model(paths["long rope"])
    ids = random_ids(ORIGINAL_CONTEXT + 10, LONG_ROPE)
    with Phi3Session(model=model) as saved:
        saved.generate(ids, LONG)
        saved.save(file)
    with Phi3Session(model=model, rope_factors="short") as short, Phi3Session(model=model) as back:
        short.load(file)
        assert short.generate(ids, LONG).usage.recomputed_tokens == len(ids) - 1
        back.load(file)
        usage = back.generate(ids[:50], GenerationConfig.greedy(max_tokens=1)).usage
        assert (usage.cached_tokens, usage.recomputed_tokens) == (0, 49)


@pytest.mark.parametrize("kv_dtype", ["f16", "f32"])
def test_another_executor_goes_on_with_it(model, kv_dtype, file):
    other = Phi3Model.demo(executor="candle")
    with (
        Phi3Session(model=model, kv_dtype=kv_dtype) as kernels,
        Phi3Session(model=other, kv_dtype=kv_dtype) as candle,
    ):
        kernels.chat(HAIKU, GREEDY)
        kernels.save(file)
        candle.load(file)
        answer = candle.chat(WHO, GREEDY)
        assert answer.usage.cached_tokens > 20
        assert answer.tokens == kernels.chat(WHO, GREEDY).tokens
        candle.save(file)
        kernels.load(file)
        assert kernels.messages == candle.messages
        assert kernels.chat("Hello", GREEDY).tokens == candle.chat("Hello", GREEDY).tokens


def test_another_process_goes_on_with_it(session, file):
    turns(session)
    session.save(str(file))
    script = """
import json, sys
from candle_phi import GenerationConfig, Phi3Session
with Phi3Session.demo(n_ctx=400, n_threads=2) as session:
    session.load(sys.argv[1])
    answer = session.chat("Hello", GenerationConfig.greedy(max_tokens=24, ignore_eos=True))
    print(json.dumps([answer.tokens, answer.usage.cached_tokens, session.tokens]))
"""
    done = subprocess.run([sys.executable, "-c", script, file], check=True, capture_output=True, text=True)
    expected = session.chat("Hello", LONG)
    assert json.loads(done.stdout) == [expected.tokens, expected.usage.cached_tokens, session.tokens]


def test_what_was_said_comes_back_to_the_letter(session, file):
    said = [
        Message.system('"\\ \u2028 \0 🙂'),
        Message.user("é\n<|end|>"),
        Message.assistant(""),
        Message.user("…"),
    ]
    session.chat(said, GREEDY)
    messages = session.messages
    session.save(file)
    session.reset()
    session.load(file)
    assert session.messages == messages
    assert session.rewind() == list(messages)


def test_a_copy_of_the_model_under_another_name_or_in_parts_is_the_same_model(tmp_path, file):
    whole = write(tmp_path / "one.gguf")
    with Phi3Session(whole) as saved:
        saved.chat("hello", GREEDY)
        saved.save(file)
        expected = saved.chat("you", GREEDY).tokens
    renamed = write(tmp_path / "two.gguf", metadata={"general.name": "another name"})
    for path in (renamed, split(whole, tmp_path / "parts.gguf")[1]):
        with Phi3Session(path) as loaded:
            loaded.load(file)
            assert loaded.chat("you", GREEDY).tokens == expected


def test_a_fork_is_saved_as_its_parent_is(session, file):
    session.chat(HAIKU, GREEDY)
    with session.fork() as fork:
        fork.chat(WHO, GREEDY)
        fork.save(file)
        session.chat("something else", GREEDY)
        session.load(file)
        assert session.messages == fork.messages
        assert session.chat("Hello", GREEDY).tokens == fork.chat("Hello", GREEDY).tokens


# What is refused.


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture
def saved(tiny, file) -> Path:
    with Phi3Session(tiny) as session:
        session.chat("hello", LONG)
        session.save(file)
    return file


def with_changed_tensor(path: Path, name: str) -> Path:
    """The tiny model with one value of one tensor changed."""
    from tiny_gguf import weights

    tensor = weights(TinyPhi3())[name].copy()
    tensor.flat[-1] += 0.5
    return write(path, tensors={name: tensor})


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"tensor_type": "F16"},
        {"freq_base": 20_000.0},
        {"rms_epsilon": 1e-6},
        {"sliding_window": 100},
        {"head_count_kv": 2},
        {"block_count": 1},
        {"attn_factor": 1.5},
        {"vocabulary_size": 321},
    ],
    ids=str,
)
def test_another_model_is_refused(saved, tmp_path, changes):
    with Phi3Session(write(tmp_path / "other.gguf", **changes)) as session:
        assert reason(session, saved) == "other_model"


@pytest.mark.parametrize("name", ["blk.1.ffn_down.weight", "blk.0.attn_norm.weight", "token_embd.weight"])
def test_one_other_weight_is_another_model(saved, tmp_path, name):
    with Phi3Session(with_changed_tensor(tmp_path / "other.gguf", name)) as session:
        assert reason(session, saved) == "other_model"


def test_another_vocabulary_is_another_model(saved, tmp_path):
    from tiny_gguf import vocabulary

    tokens, _, _ = vocabulary(320)
    tokens[270], tokens[271] = tokens[271], tokens[270]
    with Phi3Session(write(tmp_path / "other.gguf", metadata={"tokenizer.ggml.tokens": tokens})) as session:
        assert reason(session, saved) == "other_model"


def test_another_window_of_the_same_file_is_another_model(saved, tiny):
    with Phi3Session(tiny, sliding_window=64) as session:
        assert reason(session, saved) == "other_model"


@pytest.mark.parametrize("kv_dtype", ["f32", "q8_0"])
def test_another_kv_dtype_is_refused_with_the_one_that_would_do(file, kv_dtype):
    model = Phi3Model.demo()
    with Phi3Session(model=model) as session, Phi3Session(model=model, kv_dtype=kv_dtype) as other:
        session.save(file)
        assert reason(other, file) == "other_kv_dtype"
        with pytest.raises(SavedConversationError) as caught:
            other.load(file)
        mentions(caught.value, "kv_dtype", "f16", kv_dtype)


def test_a_shorter_context_is_refused_and_one_that_is_long_enough_is_not(saved, tiny):
    length = len(head_of(saved)["cached_tokens"])
    with Phi3Session(tiny, n_ctx=length - 1) as shorter, Phi3Session(tiny, n_ctx=length) as enough:
        assert reason(shorter, saved) == "too_long"
        enough.load(saved)
        assert len(enough.messages) == 2


@DAMAGES
def test_a_newer_version_is_refused(saved, tiny):
    content = bytearray(saved.read_bytes())
    content[8] += 1
    saved.write_bytes(content)
    with Phi3Session(tiny) as session:
        assert reason(session, saved) == "newer_version"


@pytest.mark.parametrize("content", [b"", b"phi-con", b"\0" * 1000, b"GGUF" + bytes(50), b'{"messages": []}'])
def test_a_file_of_another_kind_is_refused(tiny, file, content):
    file.write_bytes(content)
    with Phi3Session(tiny) as session:
        session.chat("hello", GREEDY)
        assert reason(session, file) == "not_a_conversation"


@DAMAGES
def test_damage_anywhere_is_refused(saved, tiny):
    content = saved.read_bytes()
    with Phi3Session(tiny) as session:
        session.chat("you", GREEDY)
        answer = session.fork().chat("are", GREEDY).tokens
        for at in [12, 16, 60, len(content) // 2, len(content) - 40, len(content) - 1]:
            changed = bytearray(content)
            changed[at] ^= 1
            saved.write_bytes(changed)
            assert reason(session, saved) == "damaged", at
            saved.write_bytes(content[:at])
            assert reason(session, saved) == "damaged", at
        saved.write_bytes(content + b"\0")
        assert reason(session, saved) == "damaged"
        # It goes on as if nothing had been.
        again = session.chat("are", GREEDY)
        assert again.tokens == answer
        assert again.usage.cached_tokens > 0


def test_paths_that_cannot_be(session, tmp_path):
    with pytest.raises(ConversationNotFoundError, match="no-such"):
        session.load(tmp_path / "no-such")
    with pytest.raises(FileNotFoundError):
        session.load(tmp_path / "no-such")
    for path in (tmp_path, tmp_path / "no-folder" / "talk"):
        with pytest.raises(ConversationFileError):
            session.save(path)
    with pytest.raises(ConversationFileError, match=re.escape(str(tmp_path))) as caught:
        session.load(tmp_path)
    assert not isinstance(caught.value, ConversationNotFoundError)
    for call in (session.save, session.load):
        with pytest.raises(InvalidOptionError):
            call("")
        with pytest.raises(TypeError):
            call(5)


def test_only_a_saved_conversation_is_replaced(session, tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF and all that follows")
    with pytest.raises(ConversationFileError, match='"GGUF and"') as caught:
        session.save(file)
    mentions(caught.value, file)
    assert file.read_bytes() == b"GGUF and all that follows"
    # A temporary file that was made to have a name of its own is empty.
    file.write_bytes(b"")
    session.save(file)
    session.save(file)
    session.load(file)


def test_what_was_left_out_of_a_full_context_stays_out(tiny, file):
    oldest = GenerationConfig.greedy(max_tokens=8, ignore_eos=True, on_overflow="truncate_oldest")
    with Phi3Session(tiny, n_ctx=64) as session:
        while not session.chat("hello", oldest).truncated_messages:
            pass
        session.chat("you", oldest)
        session.save(file)
        with Phi3Session(tiny, n_ctx=64) as loaded:
            loaded.load(file)
            assert (loaded.messages, loaded.tokens) == (session.messages, session.tokens)
            for conversation in (session, loaded):
                conversation.rewind()
            assert (loaded.messages, loaded.tokens) == (session.messages, session.tokens)
            assert loaded.chat("are", oldest).tokens == session.chat("are", oldest).tokens


@pytest.mark.skipif(os.name == "nt", reason="links are for administrators there")
def test_a_link_stays_one_whether_it_leads_to_a_file_yet_or_not(session, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    link, there = tmp_path / "link", tmp_path / "elsewhere" / "talk"
    link.symlink_to("elsewhere/talk")
    for _ in range(2):
        session.save(link)
        assert link.is_symlink()
        assert there.is_file()
    circle = tmp_path / "circle"
    circle.symlink_to("circle")
    with pytest.raises(ConversationFileError, match="circle"):
        session.save(circle)
    assert circle.is_symlink()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are Unix's")
def test_a_pipe_or_a_device_is_not_replaced(session, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/null")):
        for call in (session.save, session.load):
            with pytest.raises(ConversationFileError):
                call(path)
    assert pipe.is_fifo()
    assert Path("/dev/null").is_char_device()


def test_a_session_at_work_or_closed_is_neither_saved_nor_loaded(session, file):
    session.save(file)
    stream = session.stream("hello", LONG)
    next(stream)
    for call in (session.save, session.load):
        with pytest.raises(SessionBusyError):
            call(file)
    stream.close()
    session.load(file)
    session.close()
    for call in (session.save, session.load):
        with pytest.raises(SessionClosedError):
            call(file)
