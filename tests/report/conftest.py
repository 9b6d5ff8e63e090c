"""One measured workspace for all tests of the verdict and of the page."""

from __future__ import annotations

from pathlib import Path

import pytest
from reported_workspace import reported_workspace


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which the names of files and classes try to break out of a page."""
    return reported_workspace(tmp_path_factory.mktemp("reported") / "w", hostile=True).root


@pytest.fixture(scope="session")
def page(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its page."""
    from cli_workspace import vidssl

    written = tmp_path_factory.mktemp("page") / "report.html"
    vidssl("report", "--out", written, workspace=place)
    return written
