"""Where the tests find the project's files."""

from pathlib import Path

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
DATA = TESTS / "data"
SUPPORT = TESTS / "support"
