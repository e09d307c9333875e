"""Everything public of the package, found by looking at it, and how it is called when all is well."""

import asyncio
import inspect
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, is_typeddict

import candle_phi
import candle_phi.bench
import candle_phi.doctor
from candle_phi import AsyncTokenStream, GenerationConfig, Message, Phi3Model, Phi3Session

MODULES = (candle_phi, candle_phi.bench, candle_phi.doctor)
GREEDY = GenerationConfig.greedy(max_tokens=6, ignore_eos=True)
DEMO = Phi3Model.demo().path
HAIKU = "Write a haiku about ice hockey"
# A good value for what has no default.
GOOD = {
    "content": "hello",
    "messages": [Message.user("hello")],
    "n": 2,
    "n_ctx": 8,
    "name_or_repo": "phi-3-mini-4k",
    "path": DEMO,
    "prompt": "hello",
    "repo": "owner/name",
    "role": "user",
    "text": "hello",
    "tokens": [1, 2],
    "value": Message.user("hello"),
    "values": [1.0],
}


@dataclass(frozen=True)
class Public:
    """Something that can be called: a function, a class, a method."""

    name: str  # such as "Phi3Session.generate"
    call: Callable[..., Any]  # what to call; a method that needs an instance is not bound to one
    owner: type | None  # the class whose instance it needs
    parameters: tuple[str, ...]  # what `**options` takes included
    required: tuple[str, ...]


def classes() -> dict[str, type]:
    """The public classes that are no exceptions."""
    found = {name: thing for name, thing in names().items() if inspect.isclass(thing)}
    return {name: cls for name, cls in found.items() if not issubclass(cls, BaseException)}


def names() -> dict[str, Any]:
    """What the modules export, by name."""
    return {name: getattr(module, name) for module in MODULES for name in module.__all__}


def callables() -> dict[str, Public]:
    """All functions, classes and methods that are public, by name."""
    found = [public(name, thing) for name, thing in names().items() if inspect.isfunction(thing)]
    for name, cls in classes().items():
        found.append(public(name, cls))
        for member in members(cls):
            thing = inspect.getattr_static(cls, member)
            if isinstance(thing, classmethod | staticmethod):
                found.append(public(f"{name}.{member}", getattr(cls, member)))
            elif inspect.isfunction(thing):
                found.append(public(f"{name}.{member}", thing, cls))
    return {public.name: public for public in found}


def members(cls: type) -> list[str]:
    """The public names of a class, without the fields of a dataclass."""
    fields = cls.__dataclass_fields__ if is_dataclass(cls) else {}
    return [name for name in dir(cls) if not name.startswith("_") and name not in fields]


def public(name: str, call: Callable[..., Any], owner: type | None = None) -> Public:
    """What a callable takes."""
    signature = inspect.signature(call.__init__ if inspect.isclass(call) else call)
    parameters: list[str] = []
    required: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            parameters += options(parameter.annotation, owner)
            continue
        parameters.append(parameter.name)
        if parameter.default is inspect.Parameter.empty:
            required.append(parameter.name)
    return Public(name, call, owner, tuple(parameters), tuple(required))


def options(annotation: Any, owner: type | None) -> list[str]:
    """The keywords behind `**options: Unpack[...]`; where it says no more than Any, the fields of the class."""
    if get_origin(annotation) is not None:
        (keywords,) = get_args(annotation)
        assert is_typeddict(keywords)
        return list(keywords.__annotations__)
    assert owner is not None
    return list(owner.__dataclass_fields__)


def usual(public: Public, tmp_path: Path) -> dict[str, Any]:
    """Arguments that are right, such as one bad one can be put on."""
    given = {name: GOOD[name] for name in public.required if name in GOOD}
    if public.name == "Phi3Session":
        given["path"] = DEMO
    elif public.name.endswith(".save"):
        given["path"] = tmp_path / "conversation.phi"
    if "local_files_only" in public.parameters:
        given |= {"local_files_only": True, "cache_dir": tmp_path}
    return given


def outcome(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """What a call comes to: a stream is begun, a coroutine awaited."""
    found = call(*arguments, **options)
    if isinstance(found, AsyncTokenStream):

        async def read() -> list[Any]:
            async with found as stream:
                return [chunk async for chunk in stream]

        return asyncio.run(read())
    return asyncio.run(found) if inspect.iscoroutine(found) else found


def is_right(session: Phi3Session, model: Phi3Model) -> bool:
    """Whether a session with no conversation computes what a new one does."""
    assert session.messages == ()
    with Phi3Session(model=model) as fresh:
        expected = [fresh.chat("Hello", GREEDY).tokens, fresh.generate(HAIKU, GREEDY).tokens]
        found = [session.chat("Hello", GREEDY).tokens, session.generate(HAIKU, GREEDY).tokens]
    session.rewind()
    return found == expected


CALLABLES = callables()
