"""Damage, as it happens to files: by disks, networks, other programs, and people."""

from __future__ import annotations

import gzip
import io
import random
import re
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What is known of a seed file's bytes, so that damage can be aimed.

    Attributes
    ----------
    fields
        Offsets of numbers, with their `struct` format, or the length of a number in text.
    text_to
        Bytes from the start that are text.
    sealed_from
        From this byte on a checksum covers the content; None where there is none.
    container
        How the file is packed, so that damage can also be done within, under a right checksum.
    inner_fields
        ``fields`` of the unpacked gzip content.
    """

    fields: tuple[tuple[int, str | int], ...] = ()
    text_to: int = 0
    sealed_from: int | None = None
    container: Literal["", "gzip", "zip"] = ""
    inner_fields: tuple[tuple[int, str | int], ...] = ()


@dataclass(frozen=True, slots=True)
class Damaged:
    """A damaged file; ``sealed``: whether a checksum covers all that was changed."""

    data: bytes
    mutation: str
    sealed: bool


_INTEGERS = (0, -1, 1, 2, 7, 255, 2**15 - 1, -(2**15), 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1,
             2**63 - 1, -(2**63), 2**64 - 1)  # fmt: skip
_FLOATS = (0.0, -0.0, -1.0, 1e-30, 1e30, -1e30, float("nan"), float("inf"), float("-inf"), 1e-310)
_NUMBERS = (
    b"0", b"-1", b"-0", b"1e400", b"-1e400", b"nan", b"inf", b"-inf", b"99999999999999999999",
    b"2147483648", b"4294967296", b"65536", b"1e-320", b"0x10", b"1_000", b"1e30", b"00", b"",
)  # fmt: skip
_WORDS = (
    b"none", b"(", b")", b"\n", b"\n\n", b"=", b":", b"\0", b"\xff", b"LIST", b"LOCAL", b"..",
    b"/etc/hostname", b"../x", b"%d", b" ", b",", b'"', b"{", b"}", b"[", b"]", b"null", b"true",
    b"\\u0000", b"\\ud800", b"\t", b"\r", b";", b"\xc3\x28", b"\xe2\x80\xae", b"NaN", b"-Infinity",
)  # fmt: skip
_TOKEN = re.compile(rb"[A-Za-z_]+|-?\d[\d.eE+-]*|[^\sA-Za-z0-9_]")
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")

Edit = tuple[bytes, int]  # the new bytes, and the first offset that is not as it was


def damage(rng: random.Random, data: bytes, anatomy: Anatomy, others: list[bytes]) -> Damaged:
    """One mutation of a file, of a kind that its anatomy allows."""
    kinds = list(_PLAIN)
    weights = [3.0] * len(kinds)
    if anatomy.fields:
        kinds.append("number field")
        weights.append(8.0)
    if anatomy.text_to:
        kinds += ["number in text", "text token"]
        weights += [5.0, 5.0]
    if others:
        kinds.append("splice")
        weights.append(3.0)
    if anatomy.container:
        kinds.append("within the packing")
        weights.append(8.0)
    kinds.append("emptied")
    weights.append(0.5)
    while True:
        kind = rng.choices(kinds, weights)[0]
        new, first = _apply(kind, rng, data, anatomy, others)
        if new != data and new not in others:
            break
    sealed = anatomy.sealed_from is not None and first >= anatomy.sealed_from
    return Damaged(new, kind, sealed and kind != "within the packing")


def _apply(
    kind: str, rng: random.Random, data: bytes, anatomy: Anatomy, others: list[bytes]
) -> Edit:
    if kind in _PLAIN:
        return _PLAIN[kind](rng, data)
    if kind == "number field":
        return _number_field(rng, data, anatomy.fields)
    if kind == "number in text":
        return _number_in_text(rng, data, anatomy.text_to)
    if kind == "text token":
        return _text_token(rng, data, anatomy.text_to)
    if kind == "splice":
        other = rng.choice(others)
        cut = rng.randrange(1, min(len(data), len(other)))
        if rng.random() < 0.5:
            return data[:cut] + other[cut:], cut
        return data[:cut] + other[rng.randrange(len(other)) :], cut
    if kind == "emptied":
        return b"", 0
    if anatomy.container == "gzip":
        return _within_gzip(rng, data, anatomy), 0
    return _within_zip(rng, data), 0


# -- damage that knows nothing of the format ----------------------------------------------------


def _somewhere(rng: random.Random, data: bytes) -> int:
    """Any place, the first 600 bytes as likely as all the rest: headers matter most."""
    end = min(len(data), 600) if rng.random() < 0.5 else len(data)
    return rng.randrange(end)


def _bit_flips(rng: random.Random, data: bytes) -> Edit:
    new, first = bytearray(data), len(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = _somewhere(rng, data)
        new[at] ^= 1 << rng.randrange(8)
        first = min(first, at)
    return bytes(new), first


def _byte_run(rng: random.Random, data: bytes) -> Edit:
    at, size = _somewhere(rng, data), rng.choice((1, 1, 2, 4, 8, 64, 512))
    fill = rng.choice((b"\0" * size, b"\xff" * size, rng.randbytes(size), b" " * size))
    return data[:at] + fill[: len(data) - at] + data[at + size :], at


def _truncated(rng: random.Random, data: bytes) -> Edit:
    at = rng.choice((_somewhere(rng, data), len(data) - min(len(data), rng.choice((1, 2, 8, 128)))))
    return data[:at], at


def _extended(rng: random.Random, data: bytes) -> Edit:
    size = rng.choice((1, 2, 16, 512, 70_000))
    more = rng.choice((b"\0" * size, rng.randbytes(size), b"\n" * size, data[-size:], data))
    return data + more, len(data)


def _block(rng: random.Random, data: bytes) -> tuple[int, int]:
    at = _somewhere(rng, data)
    return at, min(len(data), at + rng.choice((1, 2, 7, 16, 64, 512)))


def _swapped(rng: random.Random, data: bytes) -> Edit:
    (a, b), (c, d) = sorted((_block(rng, data), _block(rng, data)))
    c = max(b, c)
    d = max(c, d)
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:], a


def _duplicated(rng: random.Random, data: bytes) -> Edit:
    (a, b), at = _block(rng, data), _somewhere(rng, data)
    return data[:at] + data[a:b] + data[at:], at


def _deleted(rng: random.Random, data: bytes) -> Edit:
    a, b = _block(rng, data)
    return data[:a] + data[b:], a


_PLAIN: dict[str, Callable[[random.Random, bytes], Edit]] = {
    "bit flips": _bit_flips,
    "byte run": _byte_run,
    "cut short": _truncated,
    "extended": _extended,
    "blocks swapped": _swapped,
    "block duplicated": _duplicated,
    "block deleted": _deleted,
}


# -- damage that knows where the numbers and words are ------------------------------------------


def _number_field(
    rng: random.Random, data: bytes, fields: tuple[tuple[int, str | int], ...]
) -> Edit:
    new, first = bytearray(data), len(data)
    for _ in range(rng.choice((1, 1, 2))):
        at, kind = rng.choice(fields)
        if isinstance(kind, int):  # a number in text of a fixed length
            raw = rng.choice(_NUMBERS)[:kind].ljust(kind)
        elif kind[-1] in "fd":
            raw = _packed(kind, rng.choice(_FLOATS))
        else:
            size = struct.calcsize(kind)
            bits = rng.choice(_INTEGERS) & (2 ** (8 * size) - 1)
            raw = bits.to_bytes(size, "big" if kind[0] == ">" else "little")
        new[at : at + len(raw)] = raw
        first = min(first, at)
    return bytes(new), first


def _packed(kind: str, value: float) -> bytes:
    try:
        return struct.pack(kind, value)
    except OverflowError:
        return struct.pack(kind, float("inf"))


def _number_in_text(rng: random.Random, data: bytes, text_to: int) -> Edit:
    found = list(_NUMBER.finditer(data, 0, text_to))
    if not found:
        return _text_token(rng, data, text_to)
    a, b = rng.choice(found).span()
    return data[:a] + rng.choice(_NUMBERS) + data[b:], a


def _text_token(rng: random.Random, data: bytes, text_to: int) -> Edit:
    found = list(_TOKEN.finditer(data, 0, text_to))
    if not found:
        return _byte_run(rng, data)
    a, b = rng.choice(found).span()
    how = rng.random()
    if how < 0.35:
        return data[:a] + rng.choice(_WORDS) + data[b:], a
    if how < 0.6:
        return data[:a] + rng.choice(_WORDS) + data[a:], a
    other = data[slice(*rng.choice(found).span())]
    if how < 0.8:
        return data[:a] + other + data[b:], a
    line = data.find(b"\n", a, text_to)
    start = data.rfind(b"\n", 0, a) + 1
    if line < 0 or how < 0.9:
        return data[:a] + data[b:], a
    return data[:start] + data[line + 1 :], start  # a whole line is lost


# -- damage under a right checksum --------------------------------------------------------------


def _within_gzip(rng: random.Random, data: bytes, anatomy: Anatomy) -> bytes:
    inner = Anatomy(fields=anatomy.inner_fields)
    return gzip.compress(damage(rng, gzip.decompress(data), inner, []).data, 1, mtime=0)


def _within_zip(rng: random.Random, data: bytes) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w") as new:
        infos = old.infolist()
        chosen = rng.choice(infos)
        for info in infos:
            content = old.read(info)
            if info is chosen:
                # npy headers and JSON are text for the first hundred bytes or so.
                inner = Anatomy(text_to=min(len(content), 400))
                content = damage(rng, content or b"x", inner, []).data
            stamp = zipfile.ZipInfo(info.filename)
            stamp.compress_type = info.compress_type
            new.writestr(stamp, content)
    return made.getvalue()
