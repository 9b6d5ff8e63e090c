"""`vidssl`, and `python -m vidssl`, so that `torchrun -m vidssl …` works."""

from vidssl.interrupts import leave_at_once


def main() -> None:
    """Runs the command line, which is imported only when Ctrl-C has been seen to."""
    leave_at_once()
    from vidssl.cli import app

    app()


if __name__ == "__main__":
    main()
