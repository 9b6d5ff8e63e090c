"""`vidssl`, and `python -m vidssl`, so that `torchrun -m vidssl …` works."""

import sys

from vidssl.interrupts import leave_at_once


def main() -> None:
    """Runs the command line, which is imported only when Ctrl-C has been seen to."""
    leave_at_once()
    _say_all()
    from vidssl.cli import app

    try:
        app()
    except SystemExit as end:
        _end_as_rank(end.code)
        raise


def _end_as_rank(code: object) -> None:
    """Ends the process if it is one of several that train together."""
    distributed = sys.modules.get("vidssl.distributed")  # there if the command had use for it
    if distributed is not None:
        distributed.leave(code if isinstance(code, int) else int(code is not None))


def _say_all() -> None:
    """Escapes letters that a terminal lacks, as in names of files, which would else be errors."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # it is None where there is no such stream
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
