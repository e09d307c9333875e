"""A dict that cannot be changed, for the fields of frozen configurations."""

from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

__all__ = ["FrozenDict"]

K = TypeVar("K")
V = TypeVar("V")


class FrozenDict(dict[K, V]):
    """A dict that cannot be changed. It compares, shows itself, copies and pickles like a dict."""

    __slots__ = ()

    def _refuse(self, *_args: object, **_options: object) -> NoReturn:
        raise TypeError(
            "the mapping of a configuration cannot be changed; use replace() to make a new configuration"
        )

    # A type checker that saw them would compare their signatures with those of dict.
    if not TYPE_CHECKING:
        __setitem__ = __delitem__ = __ior__ = _refuse
        clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)
