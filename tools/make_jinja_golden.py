"""Write tests/jinja/golden.json: what Python's Jinja renders, for the engine's chat templates.

    python tools/make_jinja_golden.py

Needs Jinja2 alone, in the version of `VERSION`. The templates are in tests/jinja/cases.toml. The environment is
the one in which transformers renders chat templates. The engine's unit test `chat::jinja::golden` renders the same
templates.
"""

from __future__ import annotations

import itertools
import json
import tomllib
from pathlib import Path
from typing import Any, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

VERSION = "3.1.6"
FOLDER = Path(__file__).resolve().parents[1] / "tests" / "jinja"


def environment() -> ImmutableSandboxedEnvironment:
    """Return the environment of transformers' `apply_chat_template`."""

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.exceptions.TemplateError(message)

    def tojson(
        x: object,
        ensure_ascii: bool = False,
        indent: int | str | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    made.filters["tojson"] = tojson
    made.globals["raise_exception"] = raise_exception
    return made


def rendered(template: str, messages: list[dict[str, str]]) -> str | None:
    """Return what Jinja renders, or None if it fails."""
    # The extension of transformers that marks answers for training renders nothing for these.
    template = template.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    variables = {"messages": messages, "add_generation_prompt": True, "tools": None, "documents": None}
    tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    try:
        return environment().from_string(template).render(variables, **tokens)
    except (jinja2.TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return None


def templates(cases: dict[str, Any]) -> list[str]:
    """Return all templates, each once."""
    texts = [json.dumps(text) for text in cases["texts"]]
    called = [
        *(f"{text}.{call}" for text, call in itertools.product(texts, cases["methods"])),
        *(f"{text}|{call}" for text, call in itertools.product(texts, cases["filters"])),
        *cases["expressions"],
    ]
    return list(dict.fromkeys([*(f"{{{{ {expression} }}}}" for expression in called), *cases["templates"]]))


def main() -> None:
    """Write the file."""
    if jinja2.__version__ != VERSION:
        raise SystemExit(f"Jinja2 {VERSION} is needed, got {jinja2.__version__}")
    cases = tomllib.loads((FOLDER / "cases.toml").read_text(encoding="utf-8"))
    messages = cases["messages"]
    content = {
        "jinja2": VERSION,
        "messages": messages,
        "cases": [{"template": each, "rendered": rendered(each, messages)} for each in templates(cases)],
        "refused": [{"template": template, "names": name} for template, name in cases["refused"]],
    }
    text = json.dumps(content, ensure_ascii=True, indent=0)
    (FOLDER / "golden.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
