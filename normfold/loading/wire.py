"""The wire format of protobuf (its documentation, "Encoding"): as much of it as messages inside messages
need."""

from __future__ import annotations

from collections.abc import Iterator

LENGTH_DELIMITED = 2
_FIXED = {1: 8, 5: 4}
_MOST_VARINT_BITS = 63


class Malformed(ValueError):
    """The bytes are no plain message."""


def fields(content: memoryview, start: int, stop: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Yields the fields of the message in ``content[start:stop]``: number, wire type, where its tag begins,
    where its payload begins and where that ends.

    Raises:
        Malformed: a field is cut off, or of a kind that onnx does not use.
    """
    at = start
    while at < stop:
        tag, payload = varint_at(content, at, stop)
        kind = tag & 7
        if kind == LENGTH_DELIMITED:
            length, payload = varint_at(content, payload, stop)
            end = payload + length
        elif kind == 0:
            _, end = varint_at(content, payload, stop)
        elif kind in _FIXED:
            end = payload + _FIXED[kind]
        else:
            raise Malformed(f"wire type {kind}")
        if end > stop:
            raise Malformed("a field is cut off")
        yield tag >> 3, kind, at, payload, end
        at = end


def varint_at(content: memoryview, at: int, stop: int) -> tuple[int, int]:
    """The number that begins at ``at``, and where it ends."""
    number = shift = 0
    while at < stop and shift <= _MOST_VARINT_BITS:
        byte = content[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
        shift += 7
    raise Malformed("a number is cut off")


def frame(field: int, size: int) -> bytes:
    """Tag and length of a length-delimited field."""
    return varint(field << 3 | LENGTH_DELIMITED) + varint(size)


def varint(number: int) -> bytes:
    """A number that is not negative, encoded."""
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)
