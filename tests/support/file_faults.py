"""Damages one file of a workspace, in one of ten ways, as a number says."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """What was done to a file.

    Attributes:
        file: its path, relative to the folder.
        what: in words.
        others: paths of other files that were changed or made as well.
    """

    file: str
    what: str
    others: tuple[str, ...] = ()


def kind_of(relative: str) -> str:
    """Returns what kind of file a path names: artifacts' kind and the name without its numbers."""
    top, name = relative.split("/")[0], Path(relative).name
    if "/" not in relative or top.startswith("."):
        return re.sub(r"[0-9a-f]{16,}", "N", relative)
    place = "unfinished" if "/.run-" in relative else "finished"
    return f"{place} {top}: {re.sub(r'run-[0-9a-f]+|[0-9]+', 'N', name)}"


def files_of(folder: Path) -> list[str]:
    """Returns the files of a folder, relative to it, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def inject(folder: Path, file: str, draw: random.Random) -> Fault | None:
    """Damages a file; returns None where the way that was drawn changes nothing."""
    name = draw.choice(list(WAYS))
    return WAYS[name](folder, file, draw)


def _rewrite(folder: Path, file: str, data: bytes) -> None:
    """Replaces a file, which may be linked from elsewhere, by another of its name."""
    path = folder / file
    path.unlink()
    path.write_bytes(data)


Change = Callable[[bytes, random.Random], tuple[bytes, str]]


def _changed(change: Change) -> Callable[[Path, str, random.Random], Fault | None]:
    def way(folder: Path, file: str, draw: random.Random) -> Fault | None:
        before = (folder / file).read_bytes()
        if not before:
            return None
        after, what = change(before, draw)
        if after == before:
            return None
        _rewrite(folder, file, after)
        return Fault(file, what)

    return way


def _flip(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    place, bit = draw.randrange(len(data)), draw.randrange(8)
    changed = bytearray(data)
    changed[place] ^= 1 << bit
    return bytes(changed), f"bit {bit} of byte {place} flipped"


def _zero(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    start = draw.randrange(len(data))
    length = draw.choice([1, 16, 512, len(data)])
    end = min(start + length, len(data))
    return data[:start] + bytes(end - start) + data[end:], f"bytes {start} to {end} zeroed"


def _cut(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    length = draw.choice([0, draw.randrange(len(data)), len(data) - 1])
    return data[:length], f"cut to {length} of {len(data)} bytes"


def _replace(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    words = [b"{}", b"[]", b"null", b"\n", b"{" * 5000, b"\xff\xfe\x00", b"id,label,group\n"]
    random_bytes = draw.randbytes(len(data))
    other = draw.choice([random_bytes, draw.choice(words)])
    return other, f"replaced by {other[:12]!r} ({len(other)} bytes)"


def _edit(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    """Changes one number or word of a text, as by hand."""
    found = list(re.finditer(rb"\d+|true|false|null|train|test|[a-z_]{3,}", data[: 1 << 16]))
    if not found:
        return data, ""
    match = draw.choice(found)
    word = draw.choice([b"0", b"-1", b"7", b"99999999999", b"null", b"test", b"x", b"", b'"', b"{"])
    start, end = match.span()
    return data[:start] + word + data[end:], f"{match[0]!r} at {start} changed to {word!r}"


def _repeat(data: bytes, draw: random.Random) -> tuple[bytes, str]:
    lines = data.splitlines(keepends=True)
    if len(lines) > 1 and draw.random() < 0.5:
        number = draw.randrange(len(lines))
        return b"".join([*lines[: number + 1], *lines[number:]]), f"line {number + 1} repeated"
    start = draw.randrange(len(data))
    end = min(len(data), start + draw.choice([1, 64, 4096]))
    return data[:end] + data[start:], f"bytes {start} to {end} repeated"


def _delete(folder: Path, file: str, draw: random.Random) -> Fault:
    (folder / file).unlink()
    return Fault(file, "deleted")


def _swap(folder: Path, file: str, draw: random.Random) -> Fault | None:
    kind = kind_of(file).partition(": ")[2]
    others = [f for f in files_of(folder) if kind_of(f).partition(": ")[2] == kind and f != file]
    if not kind or not others:
        return None
    other = draw.choice(others)
    mine, its = (folder / file).read_bytes(), (folder / other).read_bytes()
    if mine == its:
        return None
    _rewrite(folder, file, its)
    if draw.random() < 0.5:
        return Fault(file, f"has the content of {other}")
    _rewrite(folder, other, mine)
    return Fault(file, f"exchanged with {other}", (other,))


def _extra(folder: Path, file: str, draw: random.Random) -> Fault | None:
    """Copies a numbered file to the next free number."""
    path = folder / file
    match = re.search(r"(\d+)(?=\.\w+$)", path.name)
    if match is None:
        return None
    number = int(match[0])
    while (copy := path.with_name(_numbered(path.name, match, number))).exists():
        number += 1
    shutil.copy(path, copy)
    made = copy.relative_to(folder).as_posix()
    return Fault(made, f"made as a copy of {file}", (file,))


def _numbered(name: str, match: re.Match[str], number: int) -> str:
    return f"{name[: match.start()]}{number:0{len(match[0])}d}{name[match.end() :]}"


def _other_thing(folder: Path, file: str, draw: random.Random) -> Fault:
    path = folder / file
    path.unlink()
    what = draw.choice(["a folder", "a pipe", "a link to nothing", "a link to itself"])
    if what == "a folder":
        path.mkdir()
    elif what == "a pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("nothing.there" if what == "a link to nothing" else path.name)
    return Fault(file, f"is {what}")


WAYS: dict[str, Callable[[Path, str, random.Random], Fault | None]] = {
    "flip": _changed(_flip),
    "zero": _changed(_zero),
    "cut": _changed(_cut),
    "replace": _changed(_replace),
    "edit": _changed(_edit),
    "repeat": _changed(_repeat),
    "delete": _delete,
    "swap": _swap,
    "extra": _extra,
    "other thing": _other_thing,
}


def draw_file(files: Sequence[str], draw: random.Random) -> str:
    """Draws a kind of file, and then a file of that kind, so that rare kinds are tried as often."""
    kinds = sorted({kind_of(file) for file in files})
    kind = draw.choice(kinds)
    return draw.choice([file for file in files if kind_of(file) == kind])
