"""`vidssl`, and `python -m vidssl`, so that `torchrun -m vidssl …` works."""

import sys
import warnings
from typing import Any

from vidssl.base.errors import SlowerWay
from vidssl.base.signals import leave_at_once


def main() -> None:
    """Runs the command line, which is imported only when Ctrl-C has been seen to."""
    leave_at_once()
    _say_all()
    warnings.formatwarning = _in_one_line
    from vidssl.cli import app

    try:
        app()
    except SystemExit as end:
        _end_as_rank(end.code)
        raise


def _end_as_rank(code: object) -> None:
    """Ends the process if it is one of several that train together."""
    distributed = sys.modules.get("vidssl.base.distributed")  # there if the command had use for it
    if distributed is not None:
        distributed.leave(code if isinstance(code, int) else int(code is not None))


_as_python_has_it = warnings.formatwarning


def _in_one_line(message: Any, category: type[Warning], *rest: Any) -> str:
    """Leaves the place in the code away where a warning is the user's."""
    if issubclass(category, SlowerWay):
        return f"vidssl: {message}\n"
    return _as_python_has_it(message, category, *rest)


def _say_all() -> None:
    """Escapes letters that a terminal lacks, as in names of files, which would else be errors."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # it is None where there is no such stream
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
