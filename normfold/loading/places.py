"""Where tensors lie in an encoded model, and how one is exchanged there: the lengths around it follow.

Fields: onnx.proto. Local functions are left whole: they are inlined before a model is folded.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sized
from dataclasses import dataclass, field
from typing import Any, TypeVar

import onnx

from normfold.loading.walk import is_repeated
from normfold.loading.wire import LENGTH_DELIMITED, Malformed, fields, frame

Place = tuple[tuple[int, int], ...]
"""The way to a message inside a model: numbers of fields, and which of the fields of that number."""


@dataclass(frozen=True, eq=False)
class Kind:
    """A kind of message on the way to a tensor.

    Attributes:
        fields: what lies on the way, by the number of its field.
        once: the fields that are not repeated: a decoder merges what comes twice.
    """

    fields: dict[int, Kind] = field(default_factory=dict)
    once: frozenset[int] = frozenset()


GRAPH_OF_MODEL = 7
NODE, INITIALIZER = 1, 5
ATTRIBUTE_OF_NODE = 5
VALUE, SUBGRAPH, VALUES, SUBGRAPHS = 5, 6, 10, 11

TENSOR = Kind()
GRAPH = Kind()
ATTRIBUTE = Kind(
    {VALUE: TENSOR, SUBGRAPH: GRAPH, VALUES: TENSOR, SUBGRAPHS: GRAPH}, frozenset({VALUE, SUBGRAPH})
)
GRAPH.fields.update({NODE: Kind({ATTRIBUTE_OF_NODE: ATTRIBUTE}), INITIALIZER: TENSOR})
MODEL = Kind({GRAPH_OF_MODEL: GRAPH}, frozenset({GRAPH_OF_MODEL}))

MAIN_GRAPH: Place = ((GRAPH_OF_MODEL, 0),)

_ITEM = TypeVar("_ITEM", bound=Sized)

Pieces = list[bytes | memoryview | _ITEM]
"""Parts of an encoded message, one after the other; ``len`` is their size in bytes."""

Change = Callable[[int, int, slice], Pieces[_ITEM] | None]
"""Is given the number of a field, which one of that number it is, and where its payload lies. Returns what to
put there; ``None`` to leave it."""


def exchanged(
    content: memoryview, span: slice, numbers: Container[int], change: Change[_ITEM]
) -> Pieces[_ITEM] | None:
    """The message in ``content[span]`` with payloads of some fields exchanged; ``None`` where none is.

    Raises:
        Malformed: it is no plain message.
    """
    pieces: Pieces[_ITEM] = []
    met: dict[int, int] = {}
    kept = span.start
    for number, kind, begin, start, stop in fields(content, span.start, span.stop):
        if number not in numbers:
            continue
        if kind != LENGTH_DELIMITED:
            raise Malformed(f"field {number} has wire type {kind}")
        index = met.get(number, 0)
        met[number] = index + 1
        inner = change(number, index, slice(start, stop))
        if inner is not None:
            pieces += [content[kept:begin], frame(number, sum(map(len, inner))), *inner]
            kept = stop
    return [*pieces, content[kept : span.stop]] if pieces else None


def message_at(proto: onnx.ModelProto, place: Place) -> Any:
    """The message that lies there."""
    message: Any = proto
    for number, index in place:
        inner = getattr(message, message.DESCRIPTOR.fields_by_number[number].name)
        message = inner[index] if is_repeated(inner) else inner
    return message
