"""The base of everything that wraps a protobuf message instead of copying it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf.message import Message as ProtoMessage

if TYPE_CHECKING:
    from typing_extensions import Self

P = TypeVar("P", bound=ProtoMessage)


class ProtoWrapper(Generic[P]):
    """A frozen view over a protobuf message: nothing is computed before someone asks for it."""

    __slots__ = ("_proto",)

    def __init__(self, proto: P) -> None:
        self._proto = proto

    @property
    def proto(self) -> P:
        """The protobuf message itself, for whatever this class does not show."""
        return self._proto

    def __eq__(self, other: object) -> bool:
        return self._proto == other._proto if isinstance(other, type(self)) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._proto.SerializeToString(deterministic=True))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self._proto)

    def __copy__(self) -> Self:
        return self


def _restore(cls: type[ProtoWrapper[Any]], proto: ProtoMessage) -> ProtoWrapper[Any]:
    view = cls.__new__(cls)
    ProtoWrapper.__init__(view, proto)
    return view
