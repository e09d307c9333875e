"""`candle-phi chat` as a person uses it, at a terminal of its own, and as a program does, through a pipe."""

import os
import subprocess
import sys

import pytest

from candle_phi import Phi3Session
from candle_phi.cli.repl.commands import COMMANDS
from command_line import fail, run
from terminal import READY, TAKEN, Terminal, started

pytestmark = [
    pytest.mark.skipif(os.name == "nt", reason="Windows has terminals of another kind"),
    pytest.mark.thread_unsafe(reason="two would type into one terminal"),
]

HAIKU = "Write a haiku about ice hockey"
SNOW = "Write a haiku about snow"
ENTER, CTRL_C, CTRL_D, ALT_ENTER, UP, TAB = "\r", "\x03", "\x04", "\x1b\r", "\x1b[A", "\t"


@pytest.fixture(scope="module")
def answers(model) -> dict[str, str]:
    """What the embedded model answers to messages that begin a conversation, with the seed of all these chats."""
    said = [HAIKU, SNOW, "Count from 3\nto 7", f"/{SNOW}"]
    with Phi3Session(model=model) as session:
        return {text: session.chat([{"role": "user", "content": text}], seed=1).text for text in said}


@pytest.fixture
def chat(tmp_path):
    """A chat with the embedded model, at its first prompt."""
    with started("chat", "--demo", "--seed", 1, home=tmp_path) as terminal:
        terminal.until(READY)
        yield terminal


def say(terminal: Terminal, text: str) -> str:
    """What is shown behind a line that is typed, up to the next prompt."""
    terminal.type(text)
    terminal.until(text[-8:].rstrip("\r"))
    terminal.type(ENTER)
    terminal.until(TAKEN)
    return terminal.until(READY)


class TestTerminal:
    def test_a_conversation(self, chat, model):
        with Phi3Session(model=model) as session:
            expected = [session.chat(text, seed=1).text for text in (HAIKU, SNOW)]
        for text, answer in zip((HAIKU, SNOW), expected, strict=True):
            shown = say(chat, text)
            assert answer in shown
            assert "tokens/s]" in shown
        chat.type("/quit\r")
        assert chat.end() == 0

    def test_the_text_comes_piece_by_piece_and_ctrl_c_stops_it_and_not_the_program(self, tmp_path, slow_path):
        options = ("--n-ctx", 8000, "--min-tokens", 7000, "--seed", 1)
        with started("chat", "--model", slow_path, *options, home=tmp_path) as chat:
            chat.until(READY)
            chat.type("the puck\r")
            chat.until(TAKEN)
            while not chat.screen.strip():
                chat.read()
            chat.type(CTRL_C)
            assert "/undo" in chat.until(READY)
            assert "1 turn\n" in say(chat, "/stats")
            assert "'the puck'" in say(chat, "/undo")
            assert "0 turns" in say(chat, "/stats")
            chat.type(CTRL_D)
            assert chat.end() == 0

    def test_ctrl_c_while_the_message_is_read_says_nothing(self, tmp_path, slow_path):
        with started("chat", "--model", slow_path, "--n-ctx", 8000, home=tmp_path) as chat:
            chat.until(READY)
            # As a terminal pastes it, so that it is one message.
            chat.type(f"\x1b[200~{'the puck ' * 700}\x1b[201~")
            chat.type(ENTER)
            chat.until(TAKEN)
            chat.wait_for_echo()
            chat.type(CTRL_C)
            chat.until(READY)
            assert "0 turns" in say(chat, "/stats")

    def test_the_prompts_tokens_are_counted_while_they_are_read(self, tmp_path, slow_path):
        with started("chat", "--model", slow_path, "--n-ctx", 8000, "--max-tokens", 2, home=tmp_path) as chat:
            chat.until(READY)
            chat.type(f"\x1b[200~{'the puck ' * 3000}\x1b[201~")
            chat.type(ENTER)
            chat.until(TAKEN)
            chat.until("reading ")
            count, of, total = chat.until(" tokens").split()
            assert of == "of"
            assert 0 <= int(count.replace(",", "")) < int(total.replace(",", ""))
            chat.type(CTRL_C)
            assert "stopped before the answer began" in chat.until(READY)

    @pytest.mark.parametrize("word", ["exit", "Quit", "bye"])
    def test_a_word_that_is_meant_to_leave_is_not_sent(self, chat, word):
        assert f"/{word.lower()} leaves" in say(chat, word)
        assert "0 turns" in say(chat, "/stats")
        chat.type(f"/{word.lower()}\r")
        assert chat.end() == 0

    def test_a_saved_conversation_is_continued_from_the_start(self, chat, tmp_path):
        path = tmp_path / "talk.phi"
        say(chat, HAIKU)
        say(chat, f"/save {path}")
        follow_up = say(chat, SNOW)
        with started("chat", "--demo", "--seed", 1, "--load", path, home=tmp_path) as again:
            assert "1 turn; the last: 'Write a haiku about ice hockey'" in again.until(READY)
            assert say(again, SNOW).split("[")[0] == follow_up.split("[")[0]

    def test_ctrl_c_twice_at_an_empty_line_leaves(self, chat):
        chat.type(CTRL_C)
        assert "again leaves" in chat.until(READY)
        chat.type(CTRL_C)
        assert chat.end() == 0

    def test_what_was_typed_between_two_ctrl_c_is_an_end_of_leaving(self, chat, answers):
        chat.type(CTRL_C)
        chat.until(READY)
        assert answers[HAIKU] in say(chat, HAIKU)
        chat.type(CTRL_C)
        assert "again leaves" in chat.until(READY)

    def test_ctrl_c_throws_a_line_away(self, chat, answers):
        chat.type("nonsense")
        chat.until("nonsense")
        chat.type(CTRL_C)
        assert "leaves" not in chat.until(READY)
        assert answers[HAIKU] in say(chat, HAIKU)

    def test_ctrl_d_at_an_empty_line_leaves(self, chat):
        chat.type(CTRL_D)
        assert chat.end() == 0

    @pytest.mark.parametrize(
        "keys",
        [
            ["Count from 3", ALT_ENTER, "to 7"],
            ["Count from 3\\", ENTER, "to 7"],
            ['"""Count from 3', ENTER, 'to 7"""'],
            ["\x1b[200~Count from 3\rto 7\x1b[201~"],
        ],
        ids=["Alt-Enter", "a backslash", "quotes", "pasted"],
    )
    def test_a_message_of_several_lines(self, chat, answers, keys):
        for key in keys:
            chat.type(key)
        chat.until("to 7")
        chat.type(ENTER)
        assert answers["Count from 3\nto 7"] in chat.until(READY)

    def test_a_message_that_begins_with_a_slash_is_written_with_two(self, chat, answers):
        assert answers[f"/{SNOW}"] in say(chat, f"//{SNOW}")

    def test_history_is_there_in_the_next_chat_and_is_nobody_elses(self, tmp_path, answers):
        for line in (HAIKU, UP):
            with started("chat", "--demo", "--seed", 1, home=tmp_path) as chat:
                chat.until(READY)
                chat.type(line)
                chat.until("hockey")
                chat.type(ENTER)
                assert answers[HAIKU] in chat.until(READY)
                chat.type(CTRL_D)
                assert chat.end() == 0
        file = tmp_path / "candle-phi" / "chat_history"
        assert file.stat().st_mode & 0o077 == 0

    def test_no_history_leaves_nothing_behind(self, tmp_path, answers):
        with started("chat", "--demo", "--seed", 1, "--no-history", home=tmp_path) as chat:
            chat.until(READY)
            assert answers[HAIKU] in say(chat, HAIKU)
        assert list(tmp_path.iterdir()) == []

    def test_a_home_that_cannot_be_written_to(self, tmp_path, answers):
        not_a_folder = tmp_path / "file"
        not_a_folder.write_text("")
        with started("chat", "--demo", "--seed", 1, home=not_a_folder) as chat:
            chat.until(READY)
            assert answers[HAIKU] in say(chat, HAIKU)

    def test_a_terminal_that_can_do_nothing(self, tmp_path, answers):
        with started("chat", "--demo", "--seed", 1, home=tmp_path, TERM="dumb") as chat:
            chat.until(READY)
            chat.type(HAIKU + ENTER)
            assert answers[HAIKU] in chat.until("tokens/s]")

    def test_answers_alone_go_where_stdout_does(self, tmp_path, answers):
        out = tmp_path / "answers.txt"
        command = f'exec "{sys.executable}" -m candle_phi chat --demo --seed 1 > "{out}"'
        with started(home=tmp_path, command=("/bin/sh", "-c", command)) as chat:
            chat.until(READY)
            assert "tokens/s]" in say(chat, HAIKU)
            chat.type(CTRL_D)
            assert chat.end() == 0
        assert out.read_text() == f"{answers[HAIKU]}\n"

    def test_a_reader_that_goes_away_ends_it_quietly(self, tmp_path):
        chat = f'"{sys.executable}" -m candle_phi chat --demo --seed 1'
        command = f"{{ {chat}; echo left with $? >&2; }} | head -c 1"
        with started(home=tmp_path, command=("/bin/sh", "-c", command)) as terminal:
            terminal.until(READY)
            # The first answer's first piece ends the reader; at the latest the second answer notices.
            terminal.type(HAIKU + ENTER)
            while "left with" not in terminal.screen:
                terminal.read()
                if READY in terminal.screen:
                    terminal.until(READY)
                    terminal.type(SNOW + ENTER)
            assert "error" not in terminal.until("left with 0")

    def test_without_colours(self, tmp_path):
        with started("chat", "--demo", "--seed", 1, home=tmp_path, NO_COLOR="1") as chat:
            chat.until(READY)
            say(chat, HAIKU)
            assert not chat.colours()


class TestCommands:
    def test_help_names_all_that_there_are(self, chat):
        shown = say(chat, "/help")
        assert all(f"/{name}" in shown for name in COMMANDS)
        assert "Alt-Enter" in shown

    def test_an_unknown_one_says_where_to_look(self, chat):
        shown = say(chat, "/hlep")
        assert "error: " in shown
        assert "/help" in shown

    def test_retry_gives_another_answer(self, chat, model):
        say(chat, HAIKU)
        with Phi3Session(model=model) as session:
            assert session.chat(HAIKU, seed=2).text in say(chat, "/retry")
        assert "1 turn\n" in say(chat, "/stats")

    def test_undo_and_reset(self, chat, answers):
        for _ in range(3):
            say(chat, HAIKU)
        assert "and 1 more" in say(chat, "/undo 2")
        assert "1 turn\n" in say(chat, "/tokens")
        assert "error: " in say(chat, "/undo 2")
        assert "'two'" in say(chat, "/undo two")
        say(chat, "/reset")
        assert answers[SNOW] in say(chat, SNOW)

    def test_edit_puts_the_last_message_into_the_line(self, chat, answers):
        say(chat, "Write a haiku about sno")
        chat.type("/edit\r")
        chat.until("about sno")
        chat.type("w")
        chat.until("w")
        chat.type(ENTER)
        assert answers[SNOW] in chat.until(READY)
        assert answers[HAIKU] in say(chat, f"/edit {HAIKU}")
        assert "1 turn\n" in say(chat, "/stats")

    def test_an_edit_that_is_broken_off_changes_nothing(self, chat):
        say(chat, HAIKU)
        chat.type("/edit\r")
        chat.until("ice hockey")
        chat.type(CTRL_C)
        chat.until(READY)
        assert "1 turn\n" in say(chat, "/stats")

    def test_the_system_message(self, chat, model):
        say(chat, "/system Be brief.")
        with Phi3Session(model=model) as session:
            messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": HAIKU}]
            assert session.chat(messages, seed=1).text in say(chat, HAIKU)

    def test_set_changes_how_it_answers(self, chat):
        assert "temperature 0.5" in say(chat, "/set temperature 0.5")
        assert "max_tokens 3" in say(chat, "/set max-tokens 3")
        assert "cut off at max_tokens" in say(chat, HAIKU)
        shown = say(chat, "/set")
        for name, value in (("temperature", "0.5"), ("max_tokens", "3"), ("top_p", "none"), ("seed", "1")):
            assert any(line.split() == [name, value] for line in shown.splitlines())
        assert "temperature 1.0" in say(chat, "/set temperature none")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("/set warmth 2", "'warmth'"),
            ("/set top_p 2", "top_p must be"),
            ("/set max_tokens 0.5", "max_tokens must be"),
            ("/set temperature warm", "error: temperature must be a number, got 'warm'"),
        ],
    )
    def test_what_cannot_be_set(self, chat, line, message):
        shown = say(chat, line)
        assert "error: " in shown
        assert message in shown
        assert "--" not in shown

    def test_model_says_what_this_is(self, chat):
        shown = say(chat, "/model")
        assert "phi3" in shown
        assert "candle-phi-demo.gguf" in shown

    def test_the_menu_says_what_a_command_does(self, chat):
        chat.type("/" + TAB)
        chat.until(COMMANDS["reset"].about)

    def test_tab_completes_a_command(self, chat):
        chat.type("/mod" + TAB)
        chat.until("/model")
        chat.type(ENTER)
        assert "candle-phi-demo.gguf" in chat.until(READY)

    @pytest.mark.skipif(not hasattr(Phi3Session, "save"), reason="this build saves no conversations")
    def test_a_conversation_is_saved_and_gone_on_with(self, chat, tmp_path):
        path = tmp_path / "talk.phi"
        assert "error: " in say(chat, f"/save {path}")
        assert not path.exists()
        say(chat, HAIKU)
        assert "saved" in say(chat, f"/save {path}")
        follow_up = say(chat, SNOW)
        say(chat, "/reset")
        assert "1 turn; the last: 'Write a haiku about ice hockey'" in say(chat, f"/load {path}")
        assert say(chat, SNOW).split("[")[0] == follow_up.split("[")[0]
        assert "error: " in say(chat, f"/load {tmp_path / 'missing.phi'}")
        assert "/save PATH" in say(chat, "/save")


class TestPipe:
    def test_each_line_is_a_turn_and_the_answers_come_alone(self, model):
        ran = run("chat", "--demo", "--seed", 1, stdin=f"{HAIKU}\n\n  \n{SNOW}")
        with Phi3Session(model=model) as session:
            expected = [session.chat(text, seed=1).text for text in (HAIKU, SNOW)]
        assert ran.returncode == 0
        assert ran.stdout == "".join(f"{answer}\n" for answer in expected)
        # One line of warning from the second message on, since lines are often meant to be answered by themselves.
        (warning,) = ran.stderr.splitlines()
        assert warning.startswith("warning: ")
        assert "candle-phi generate" in warning

    def test_a_single_line_is_no_reason_for_a_warning(self):
        ran = run("chat", "--demo", "--seed", 1, stdin=f"\n{HAIKU}\n\n")
        assert (ran.returncode, ran.stderr) == (0, "")

    def test_a_line_that_looks_like_a_command_is_said(self, answers):
        ran = run("chat", "--demo", "--seed", 1, stdin=f"/{SNOW}\n")
        assert ran.stdout == f"{answers['/' + SNOW]}\n"

    def test_an_answer_is_there_before_the_next_line(self, answers):
        command = [sys.executable, "-m", "candle_phi", "chat", "--demo", "--seed", "1"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{HAIKU}\n".encode())
            expected = f"{answers[HAIKU]}\n".encode()
            read = b""
            while len(read) < len(expected):
                read += process.stdout.read(1)
            assert read == expected
            process.stdin.close()
            assert process.wait(60) == 0

    def test_statistics_go_to_stderr(self):
        ran = run("chat", "--demo", "--seed", 1, "--stats", stdin=f"{HAIKU}\n{SNOW}\n")
        assert ran.stderr.count("tokens/s, the first after") == 2

    def test_an_error_ends_it(self):
        ran = run("chat", "--demo", "--n-ctx", 8, stdin=f"{HAIKU}\n")
        assert (ran.returncode, ran.stdout) == (1, "")
        assert "set n_ctx higher" in ran.stderr

    def test_a_wrong_command_line(self):
        assert "--demo" in fail(2, "chat")
        assert "--top-p" in fail(2, "chat", "--demo", "--top-p", 2)
