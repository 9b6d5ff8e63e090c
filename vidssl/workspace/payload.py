"""Opens files of artifacts: the one place that does, after comparing them with the manifest.

`artifact.json` records size and SHA-256 of each file. A file that is read whole is compared with
both, at every read. Of shards, which are large, the list of files and their sizes are compared;
their frames have checksums of their own, and :func:`vidssl.shards.open_shards` compares their ids.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from vidssl.base.errors import VidsslError
from vidssl.base.files import file_digest
from vidssl.base.stored_json import DamagedFile, parse_json, read_bytes, record

MANIFEST = "artifact.json"

_Record = TypeVar("_Record")

FileRecord = Mapping[str, Any]  # {"bytes": size, "sha256": digest} of a file


class DamagedArtifact(VidsslError):
    """A file of an artifact is not what its manifest records.

    Attributes:
        fault: what is wrong, without the advice on what to do.
    """

    def __init__(self, fault: str, label: str) -> None:
        super().__init__(
            f"{fault} (of {label}); what can be made again, this makes again: "
            f"vidssl verify --repair {label}"
        )
        self.fault = fault


@dataclass(frozen=True)
class Payload:
    """The files of one artifact.

    Attributes:
        folder: of the artifact.
        label: of the artifact, for sentences.
        records: {path in the folder: record of the file}.
    """

    folder: Path
    label: str
    records: Mapping[str, FileRecord]

    def where(self, name: str) -> str:
        """Returns the path of a file, for sentences."""
        return str(self.folder / name)

    def read(self, name: str) -> bytes:
        """Returns the bytes of a file, after comparing just these with the recorded SHA-256.

        Raises:
            DamagedArtifact: the file is missing, or other bytes than were written.
            VidsslError: it cannot be read.
        """
        path = self.sized(name)
        data = read_bytes(path, self.records[name]["bytes"])
        if hashlib.sha256(data).hexdigest() != self.records[name]["sha256"]:
            raise DamagedArtifact(_changed(path), self.label)
        return data

    def record(self, cls: type[_Record], name: str) -> _Record:
        """Returns the dataclass in a small JSON file, after comparing it as :meth:`read` does.

        Raises:
            VidsslError: as :meth:`read`, or the file holds something else.
        """
        path = self.folder / name
        try:
            text = self.read(name).decode("utf-8")
        except UnicodeDecodeError:
            raise DamagedFile(f"{path} is damaged: it is not UTF-8 text") from None
        return record(cls, parse_json(text, path), path, ignore=True)

    def checked(self, name: str) -> Path:
        """Returns the path of a file, after comparing its bytes with the recorded SHA-256.

        Raises:
            As :meth:`read`.
        """
        path = self.sized(name)
        if fault := self.changed(name):
            raise DamagedArtifact(fault, self.label)
        return path

    def sized(self, name: str) -> Path:
        """Returns the path of a file, after comparing its size alone.

        It is for files that are too large to be read for a look at their header, and are checked
        otherwise before their content is used.

        Raises:
            DamagedArtifact: the file is missing, or has another size.
        """
        fault = self.misfit(name) if name in self.records else self._unknown(name)
        if fault is not None:
            raise DamagedArtifact(fault, self.label)
        return self.folder / name

    def complete(self, pattern: str) -> list[Path]:
        """Returns the files whose names match, after comparing their list and their sizes.

        Args:
            pattern: as of a shell, such as `shard-*.h5`.

        Raises:
            DamagedArtifact: one of them is missing or has another size, or there is one more.
        """
        for name in self.records:
            if fnmatchcase(name, pattern) and (fault := self.misfit(name)) is not None:
                raise DamagedArtifact(fault, self.label)
        for name, fault in self.foreign():
            if fnmatchcase(name, pattern):
                raise DamagedArtifact(f"{fault}: move it away", self.label)
        return [self.folder / name for name in sorted(self.records) if fnmatchcase(name, pattern)]

    def misfits(self) -> Iterator[tuple[str, str]]:
        """Yields (file, sentence) for each file that is missing, too short, too long or too many.

        No file is read.
        """
        for name in self.records:
            if (fault := self.misfit(name)) is not None:
                yield name, fault
        yield from self.foreign()

    def misfit(self, name: str) -> str | None:
        """Returns a sentence if a file is missing or of another size than recorded, else None."""
        path, size = self.folder / name, self.records[name]["bytes"]
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return f"{path} is missing"
        except OSError as error:
            return f"{path} cannot be read: {error.strerror}"
        if not stat.S_ISREG(found.st_mode):
            return f"{path} is no regular file"
        if found.st_size != size:
            return f"{path} is damaged: it has {found.st_size} bytes instead of {size}"
        return None

    def changed(self, name: str) -> str | None:
        """Returns a sentence if a file's bytes are not those that were written, else None."""
        if name not in self.records:
            return self._unknown(name)
        path = self.folder / name
        try:
            same = file_digest(path) == self.records[name]["sha256"]
        except VidsslError as error:  # a failing disk, or no regular file
            return str(error)
        except OSError as error:  # no permission to read
            return f"{path} cannot be read: {error.strerror}"
        return None if same else _changed(path)

    def foreign(self) -> Iterator[tuple[str, str]]:
        """Yields (file, sentence) for each file that the manifest does not list."""
        known = set(self.records) | {MANIFEST}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if name not in known and not path.is_dir():
                yield name, f"{path} does not belong to {self.label}"

    def _unknown(self, name: str) -> str:
        return f"{self.folder / MANIFEST} lists no file {name}"


def _changed(path: Path) -> str:
    return f"{path} is damaged: its bytes are not those that were written"
