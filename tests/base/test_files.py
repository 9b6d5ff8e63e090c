"""Errors of the operating system become one sentence with the path, whatever the system says."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from vidssl.base import files
from vidssl.base.errors import VidsslError
from vidssl.base.files import (
    NotRegular,
    atomic_write,
    file_digest,
    open_to_append,
    read_regular,
    system_errors_name,
    system_sentence,
)
from vidssl.base.locks import file_lock, is_locked

SAYS = {
    errno.ENOSPC: "the disk is full: .*a.json could not be written; free some space",
    errno.EDQUOT: "the disk is full: .*a.json could not be written; free some space",
    errno.EFBIG: r"a\.json could not be written: a file may not become so large here \(ulimit -f",
    errno.EMFILE: r"a\.json could not be opened: .* allow more with ulimit -n",
    errno.ENFILE: r"a\.json could not be opened: this machine has too many files open",
    errno.EIO: r"a\.json could not be read or written: the disk or its connection fails",
    errno.EROFS: r"a\.json could not be written: the file system is read-only",
}


@pytest.mark.parametrize("number", SAYS, ids=errno.errorcode.get)
def test_a_write_that_fails_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch, number):
    path = tmp_path / "a.json"
    atomic_write(path, b"old")

    def failing(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", failing)
        with pytest.raises(VidsslError, match=SAYS[number]) as caught:
            atomic_write(path, b"new")
    assert "\n" not in str(caught.value) and ".tmp" not in str(caught.value)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.json"]


def test_a_read_that_fails_names_the_file(tmp_path, monkeypatch):
    def failing(file: object, kind: str) -> None:
        raise OSError(errno.EIO, "Input/output error")

    (tmp_path / "a.json").touch()
    monkeypatch.setattr(files.hashlib, "file_digest", failing)
    with pytest.raises(VidsslError, match=r"a\.json could not be read or written"):
        file_digest(tmp_path / "a.json")


def test_an_error_that_names_its_file_stays_what_it_is(tmp_path):
    with pytest.raises(FileNotFoundError), system_errors_name(tmp_path):
        (tmp_path / "none").open()


def test_every_error_of_the_system_has_a_sentence_or_is_none_of_the_users():
    assert system_sentence(PermissionError(errno.EACCES, "Permission denied", "x")) == (
        "x: Permission denied"
    )
    assert system_sentence(OSError(errno.EMFILE, "Too many open files")).startswith("a file could")
    assert system_sentence(OSError("something of a library")) is None
    assert system_sentence(ConnectionResetError(errno.ECONNRESET, "reset")) is None
    long = system_sentence(OSError(errno.ENAMETOOLONG, "File name too long", "d/" * 3000))
    assert "its path is too long" in long and len(long) < 300


def test_a_lock_that_leads_elsewhere_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with (
            pytest.raises(VidsslError, match=f"{name} is no lock of vidssl"),
            file_lock(tmp_path / name),
        ):
            pass
        assert is_locked(tmp_path / name) is None
    assert not (tmp_path / "outside").exists()
    with file_lock(tmp_path / "own"):
        assert is_locked(tmp_path / "own")
    assert is_locked(tmp_path / "own") is False


def test_long_paths_are_shown_in_part():
    said = system_sentence(OSError(errno.EIO, "x"), Path("a" * 100 + "b" * 500 + "c" * 100))
    assert "a" * 100 + "…" + "c" * 100 in said


def test_only_a_regular_file_is_appended_to(tmp_path):
    pipe, file = tmp_path / "pipe", tmp_path / "file"
    os.mkfifo(pipe)
    for opened in (open_to_append, read_regular):
        with pytest.raises(NotRegular, match=r"pipe is no regular file: delete it"):
            opened(pipe)
    for part in (b"one", b"two"):
        descriptor = open_to_append(file)
        os.write(descriptor, part)
        os.close(descriptor)
    assert file.read_bytes() == b"onetwo"
