"""`vidssl`, and `python -m vidssl`, so that `torchrun -m vidssl …` works."""

import sys

from vidssl.interrupts import leave_at_once


def main() -> None:
    """Runs the command line, which is imported only when Ctrl-C has been seen to."""
    leave_at_once()
    _say_all()
    from vidssl.cli import app

    app()


def _say_all() -> None:
    """Escapes letters that a terminal lacks, as in names of files, which would else be errors."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # it is None where there is no such stream
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    main()
