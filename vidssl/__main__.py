"""Starts the program, as `vidssl` or as `python -m vidssl` (for `torchrun -m vidssl …`)."""

import sys
import warnings

from vidssl.base.errors import Remark
from vidssl.base.signals import leave_at_once
from vidssl.base.text import printable


def main() -> None:
    """Runs the command line. Imports it late, so that Ctrl-C during imports ends quietly."""
    leave_at_once()
    _escape_unknown_letters()
    warnings.formatwarning = _format_warning
    from vidssl.cli import app

    try:
        app()
    except SystemExit as end:
        _end_as_rank(end.code)
        raise


def _end_as_rank(code: object) -> None:
    """Ends the process if it is one of several that train together."""
    distributed = sys.modules.get("vidssl.base.distributed")  # None if the command did not train
    if distributed is not None:
        distributed.leave(code if isinstance(code, int) else int(code is not None))


_python_format = warnings.formatwarning


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Shows a warning that is meant for the user as one line, without a line of source code."""
    if issubclass(category, Remark):
        return f"vidssl: {printable(str(message))}\n"
    return _python_format(message, category, filename, lineno, line)


def _escape_unknown_letters() -> None:
    """Lets letters that a terminal cannot show, as in names of files, be escaped, not fail."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a stream that is closed is None
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
