"""A chat without its terminal: what is said, taken back, said again, and stopped."""

import re
import signal

import pytest

from candle_phi import ContextLengthError, GenerationConfig, InvalidOptionError, Message, Phi3Session
from candle_phi.cli.repl import answer, commands
from candle_phi.cli.repl.conversation import Conversation
from candle_phi.cli.repl.loop import Chat
from candle_phi.cli.sampling import SETTINGS
from messages import mentions, named

GREEDY = GenerationConfig.greedy(max_tokens=40)
HAIKU = "Write a haiku about ice hockey"
SNOW = "Write a haiku about snow"


@pytest.fixture
def conversation(session: Phi3Session) -> Conversation:
    return Conversation(session, GREEDY)


def say(conversation: Conversation, text: str) -> str:
    """The answer to a message, as it is shown."""
    return answer.show(conversation, conversation.say(text)).text


def expected(model, *said: str | Message, config: GenerationConfig = GREEDY) -> list[str]:
    """What a session of its own answers to the same messages, one after the other."""
    with Phi3Session(model=model) as session:
        return [session.chat(text if isinstance(text, str) else [text], config).text for text in said]


@pytest.mark.thread_unsafe(reason="Ctrl-C is for the main thread")
class TestConversation:
    def test_it_is_what_a_session_has(self, conversation, model, capsys):
        answers = [say(conversation, HAIKU), say(conversation, SNOW)]
        assert answers == expected(model, HAIKU, SNOW)
        assert capsys.readouterr().out == "".join(f"{text}\n" for text in answers)
        assert conversation.turns == 2

    def test_the_system_message_is_said_with_the_first(self, model):
        with Phi3Session(model=model) as session:
            conversation = Conversation(session, GREEDY, "Be brief.")
            say(conversation, HAIKU)
            say(conversation, SNOW)
            roles = [message.role for message in session.messages]
        assert roles == ["system", "user", "assistant", "user", "assistant"]

    def test_a_turn_that_was_taken_back_is_forgotten(self, conversation, model):
        say(conversation, HAIKU)
        say(conversation, "Count from 3 to 7")
        assert conversation.take_back(1) == ["Count from 3 to 7"]
        assert say(conversation, SNOW) == expected(model, HAIKU, SNOW)[1]

    def test_the_system_message_survives_that_everything_is_taken_back(self, model):
        with Phi3Session(model=model) as session:
            conversation = Conversation(session, GREEDY, "Be brief.")
            first = say(conversation, HAIKU)
            say(conversation, SNOW)
            assert conversation.take_back(2) == [HAIKU, SNOW]
            assert conversation.system == "Be brief."
            assert conversation.turns == 0
            assert say(conversation, HAIKU) == first

    def test_more_turns_than_there_are(self, conversation):
        with pytest.raises(InvalidOptionError):
            conversation.take_back(1)
        say(conversation, HAIKU)
        for turns, values in ((2, (2,)), (0, (1, 0)), (-1, (1, -1))):
            with pytest.raises(InvalidOptionError) as caught:
                conversation.take_back(turns)
            mentions(caught.value, *values)
        assert conversation.turns == 1
        say(conversation, SNOW)
        with pytest.raises(InvalidOptionError) as caught:
            conversation.take_back(3)
        mentions(caught.value, 2, 3)
        assert conversation.turns == 2

    def test_another_system_message_leaves_what_was_said(self, conversation):
        said = say(conversation, HAIKU)
        conversation.set_system("Be brief.")
        say(conversation, SNOW)
        messages = conversation.session.messages
        assert list(messages[:3]) == [Message.system("Be brief."), Message.user(HAIKU), Message.assistant(said)]
        assert conversation.take_back(2) == [HAIKU, SNOW]
        conversation.set_system(None)
        assert conversation.messages == []
        assert say(conversation, HAIKU) == said

    def test_the_same_system_message_again_changes_nothing(self, conversation):
        for system in (None, "Be brief."):
            conversation.set_system(system)
            say(conversation, HAIKU)
            tokens = conversation.session.tokens
            conversation.set_system(system)
            assert not conversation.is_unread
            assert conversation.session.tokens == tokens != []

    def test_no_system_message_any_more_and_everything_taken_back_is_a_new_conversation(self, conversation):
        said = say(conversation, HAIKU)
        conversation.set_system(None)
        assert conversation.take_back(1) == [HAIKU]
        assert conversation.messages == []
        assert say(conversation, HAIKU) == said

    def test_a_turn_before_the_new_system_message_is_read_can_be_taken_back(self, conversation):
        say(conversation, HAIKU)
        say(conversation, SNOW)
        conversation.set_system("Be brief.")
        assert conversation.take_back(1) == [SNOW]
        assert [message.role for message in conversation.messages] == ["system", "user", "assistant"]

    def test_beginning_anew_keeps_the_system_message_alone(self, model):
        with Phi3Session(model=model) as session:
            conversation = Conversation(session, GREEDY, "Be brief.")
            first = say(conversation, HAIKU)
            conversation.begin_anew()
            assert conversation.messages == [Message.system("Be brief.")]
            assert say(conversation, HAIKU) == first

    def test_saying_it_again_takes_the_next_seed(self, conversation, model):
        conversation.config = GenerationConfig(seed=5, max_tokens=40)
        say(conversation, HAIKU)
        for seed in (6, 7):
            again = answer.show(conversation, conversation.say_again())
            assert (again.seed, conversation.turns) == (seed, 1)
            assert [again.text] == expected(model, HAIKU, config=GenerationConfig(seed=seed, max_tokens=40))
        assert answer.show(conversation, conversation.say(SNOW)).seed == 5

    def test_another_text_in_its_place(self, conversation, model):
        say(conversation, HAIKU)
        answer.show(conversation, conversation.say_again(SNOW))
        assert [message.content for message in conversation.messages] == [SNOW, *expected(model, SNOW)]

    def test_nothing_to_say_again(self, conversation):
        with pytest.raises(InvalidOptionError):
            conversation.say_again()
        assert conversation.last_said is None

    def test_what_the_session_has_not_read_yet_cannot_be_saved(self, conversation, monkeypatch, tmp_path):
        saved = []
        monkeypatch.setattr(Phi3Session, "save", lambda _session, path: saved.append(path), raising=False)
        reasons = []
        for _ in range(2):
            with pytest.raises(InvalidOptionError) as caught:
                conversation.save(tmp_path / "talk")
            reasons.append(str(caught.value))
            conversation.set_system("Be brief.")
        say(conversation, HAIKU)
        conversation.set_system("You count.")
        assert conversation.is_unread
        with pytest.raises(InvalidOptionError) as caught:
            conversation.save(tmp_path / "talk")
        # The same reason twice, and now another one.
        assert reasons == [reasons[0]] * 2
        assert str(caught.value) != reasons[0]
        say(conversation, SNOW)
        conversation.save(tmp_path / "talk")
        assert saved == [tmp_path / "talk"]

    def test_a_conversation_that_is_loaded_takes_the_place_of_this_one(self, conversation, monkeypatch, tmp_path):
        say(conversation, HAIKU)
        conversation.set_system("Be brief.")
        loaded = []
        monkeypatch.setattr(Phi3Session, "load", lambda _session, path: loaded.append(path), raising=False)
        conversation.load(tmp_path / "talk")
        assert loaded == [tmp_path / "talk"]
        assert conversation.messages == list(conversation.session.messages)

    def test_a_message_that_does_not_fit_can_be_said_again_shorter(self, model):
        with Phi3Session(model=model, n_ctx=48) as session:
            conversation = Conversation(session, GREEDY)
            with pytest.raises(ContextLengthError) as caught:
                conversation.say("snow " * 100)
            assert caught.value.context_length == 48
            assert conversation.last_said == "snow " * 100
            answer.show(conversation, conversation.say_again("Hello"))
            assert [message.content for message in conversation.messages][:1] == ["Hello"]


@pytest.mark.thread_unsafe(reason="what is said is read from the streams of the process")
class TestCommands:
    """Commands without a terminal to type them into."""

    @pytest.fixture
    def do(self, conversation, capsys):
        chat = Chat(conversation, terminal=None, stats=False)

        def do(line: str) -> str:
            capsys.readouterr()
            commands.run(chat, line)
            return capsys.readouterr().err.strip()

        return do

    @pytest.mark.parametrize("line", ["/quit", "/exit", "/bye"])
    def test_each_way_to_leave(self, do, line):
        with pytest.raises(EOFError):
            do(line)

    @pytest.mark.parametrize(
        ("line", "meant"),
        [
            ("/q", "quit"),
            ("/Help", "help"),
            ("/?", "help"),
            ("/rest", "reset"),
            ("/clear", "reset"),
        ],
    )
    def test_an_unknown_one_says_what_was_meant(self, do, line, meant):
        with pytest.raises(InvalidOptionError) as caught:
            do(line)
        mentions(caught.value, line)
        suggested = re.findall(r"/\w+", str(caught.value).replace(line, "", 1))
        assert suggested == [f"/{meant}"]

    @pytest.mark.parametrize(
        ("line", "option", "values"),
        [
            ("/set temperature -1", "temperature", (0, 1_000_000, -1)),
            ("/set max_tokens soon", "max_tokens", ("'soon'",)),
            ("/set stop 'a", "stop", ("'a",)),
        ],
    )
    def test_a_value_that_a_setting_cannot_have(self, do, conversation, line, option, values):
        with pytest.raises(InvalidOptionError) as caught:
            do(line)
        assert caught.value.option == option
        mentions(caught.value, *values)
        assert conversation.config == GREEDY

    @pytest.mark.parametrize(
        ("given", "meant"),
        [
            ("temprature", ["temperature"]),
            ("n_predict", ["max_tokens"]),
            ("n_ctx", []),
            ("xyzzy", SETTINGS),
        ],
    )
    def test_settings_have_the_names_that_they_are_set_by(self, do, given, meant):
        with pytest.raises(InvalidOptionError) as caught:
            do(f"/set {given} 3")
        assert named(caught.value, [given, *SETTINGS]) == [given, *meant]

    def test_what_is_no_setting_of_a_chat_is_told_where_it_is_set(self, do):
        with pytest.raises(InvalidOptionError) as caught:
            do("/set n_ctx 3")
        mentions(caught.value, "'n_ctx'", "candle-phi chat --n-ctx")

    def test_a_quote_that_is_not_closed(self, do, conversation):
        with pytest.raises(InvalidOptionError) as error:
            do("/set stop 'a")
        assert error.value.option == "stop"
        mentions(error.value, "'a")
        assert conversation.config.stop == GREEDY.stop

    def test_what_overflows_says_how_to_set_it(self, conversation):
        say(conversation, "snow " * 300)
        with pytest.raises(ContextLengthError) as error:
            conversation.say("snow " * 300)
        mentions(error.value, "on_overflow", '"truncate_oldest"')

    @pytest.mark.parametrize(
        ("typed", "stop"),
        [
            ("goal", ("goal",)),
            ('"a b "', ("a b ",)),
            ("'a' 'b c'", ("a", "b c")),
            ('"\n"', ("\n",)),
            ("5", ("5",)),
            ("it's", ("it's",)),
            ("'none'", ("none",)),
            ("none", None),
        ],
    )
    def test_a_stop_text_may_be_in_quotes(self, do, conversation, typed, stop):
        do(f"/set stop {typed}")
        assert conversation.config.stop == stop

    def test_a_path_may_be_in_quotes(self, do, conversation, tmp_path):
        say(conversation, HAIKU)
        path = tmp_path / "a talk.phi"
        mentions(do(f'/save "{path}"'), path)
        assert path.exists()
        mentions(do(f"/load {path}"), 1, repr(HAIKU))

    def test_what_is_read_again_is_said_so(self, do, conversation):
        say(conversation, HAIKU)
        say(conversation, SNOW)
        do("/system You count.")
        unread = do("/stats").splitlines()[-1]
        mentions(unread, 0, 512, 2)
        say(conversation, HAIKU)
        read = do("/stats").splitlines()[-1]
        mentions(read, len(conversation.session.tokens), 512, 3)
        # More than other numbers.
        assert re.sub(r"\d+", "", unread) != re.sub(r"\d+", "", read)

    def test_a_file_without_a_turn_has_no_last_one(self, do, model, tmp_path):
        with Phi3Session(model=model) as session:
            session.generate("Hello", max_tokens=1)
            session.save(tmp_path / "text.phi")
        told = do(f"/load {tmp_path / 'text.phi'}")
        mentions(told, 0)
        assert "'" not in told


class Interrupted:
    """A stream during whose step the signal of Ctrl-C comes, so many times."""

    def __init__(self, stream, *, after: int, times: int = 1):
        self.stream, self.after, self.times = stream, after, times

    def __iter__(self):
        return self

    def __next__(self):
        chunk = None if self.after == 0 else next(self.stream)
        self.after -= 1
        if self.after == -1 or (chunk is not None and self.after == 0):
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
        return next(self.stream) if chunk is None else chunk

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.stream.close()

    def __getattr__(self, name):
        return getattr(self.stream, name)


@pytest.mark.thread_unsafe(reason="Ctrl-C is for the main thread")
class TestInterrupt:
    def test_what_there_is_of_the_answer_counts(self, conversation, capsys):
        whole = say(conversation, HAIKU)
        conversation.begin_anew()
        capsys.readouterr()
        stream = Interrupted(conversation.say(HAIKU), after=4)
        completion = answer.show(conversation, stream)
        assert completion.finish_reason == "cancelled"
        assert 0 < len(completion.text) < len(whole)
        assert whole.startswith(completion.text)
        shown = capsys.readouterr()
        assert shown.out == f"{completion.text}\n"
        # It can be taken back, and so it counts.
        assert re.findall(r"/[a-z]+", shown.err.replace("tokens/s", "")) == ["/undo"]
        assert conversation.messages == [Message.user(HAIKU), Message.assistant(completion.text)]
        assert say(conversation, "go on")
        assert conversation.take_back(2) == [HAIKU, "go on"]

    def test_before_the_answer_began_nothing_was_said(self, conversation, model, capsys):
        stream = Interrupted(conversation.say(HAIKU), after=0)
        assert answer.show(conversation, stream).text == ""
        assert re.findall(r"/[a-z]+", capsys.readouterr().err.replace("tokens/s", "")) == ["/retry"]
        assert (conversation.messages, conversation.last_said) == ([], HAIKU)
        again = answer.show(conversation, conversation.say_again())
        assert [again.text] == expected(model, HAIKU)
        assert conversation.turns == 1

    def test_a_second_one_does_not_wait_for_the_next_piece(self, conversation):
        answer.show(conversation, Interrupted(conversation.say(HAIKU), after=3, times=2))
        assert conversation.messages == []
        assert say(conversation, HAIKU)

    def test_pythons_own_handler_is_back_afterwards(self, conversation):
        before = signal.getsignal(signal.SIGINT)
        say(conversation, HAIKU)
        assert signal.getsignal(signal.SIGINT) is before

    def test_a_system_message_that_was_not_read_yet_is_said_with_the_next(self, model):
        with Phi3Session(model=model) as session:
            conversation = Conversation(session, GREEDY, "Be brief.")
            answer.show(conversation, Interrupted(conversation.say(HAIKU), after=0))
            say(conversation, SNOW)
            assert [message.role for message in session.messages] == ["system", "user", "assistant"]


class TestKeep:
    """`TokenStream.keep`, which the chat stands on."""

    def test_the_conversation_goes_on_from_what_there_is(self, session):
        with session.chat_stream(HAIKU, GREEDY) as stream:
            seen = [next(stream).text for _ in range(5)]
            assert stream.keep() is True
            seen += [chunk.text for chunk in stream]
        assert stream.result.finish_reason == "cancelled"
        assert "".join(seen) == stream.result.text
        assert list(session.messages) == [Message.user(HAIKU), Message.assistant(stream.result.text)]
        follow_up = session.chat("go on", GREEDY)
        assert follow_up.usage.cached_tokens > 5

    def test_without_a_token_there_is_nothing_to_keep(self, session):
        with session.chat_stream(HAIKU, GREEDY) as stream:
            assert stream.keep() is False
            assert list(stream) == []
        assert session.messages == ()
        assert session.chat(HAIKU, GREEDY).text

    def test_a_stream_at_its_end_is_what_it_was(self, session):
        with session.chat_stream(HAIKU, GREEDY) as stream:
            text = "".join(map(str, stream))
            assert stream.keep() is False
        assert (stream.result.text, stream.result.finish_reason) == (text, "stop")
        assert len(session.messages) == 2

    def test_a_raw_prompt_has_no_turn(self, session):
        with session.stream("Hello", GREEDY) as stream:
            next(stream)
            assert stream.keep() is False
        assert session.messages == ()

    def test_text_that_was_held_back_is_given_out(self, session):
        whole = session.chat(HAIKU, GREEDY).text
        session.reset()
        # The first word may be the beginning of this stop text, so all of it waits.
        with session.chat_stream(HAIKU, GREEDY, stop=whole + "!") as stream:
            for _ in range(5):
                assert next(stream).text == ""
            assert stream.keep()
            (last,) = stream
        assert last.text == stream.result.text
        assert whole.startswith(last.text)
        assert session.messages[1].content == last.text
