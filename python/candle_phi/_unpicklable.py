"""A base class for objects that cannot leave this process."""

from typing import ClassVar, NoReturn, SupportsIndex


class Unpicklable:
    """A base class that refuses pickling and copying; the error says what to do instead.

    Without it, Python would report that some object of the native module cannot be pickled, or would copy an
    object that refers to one.
    """

    __slots__ = ()

    _instead: ClassVar[str]

    def __reduce_ex__(self, _protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"{type(self).__name__} objects can be neither pickled nor copied: {self._instead}")
