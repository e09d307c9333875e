"""What lives in this process and nowhere else."""

from typing import ClassVar, NoReturn, SupportsIndex


class Unpicklable:
    """Refuses to be pickled and copied, and says what to do in place of it.

    Without this, Python would say that some object of the compiled module cannot be pickled, or, worse, copy what
    refers to it.
    """

    __slots__ = ()

    _instead: ClassVar[str]

    def __reduce_ex__(self, _protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"{type(self).__name__} objects can be neither pickled nor copied: {self._instead}")
