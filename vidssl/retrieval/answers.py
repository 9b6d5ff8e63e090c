"""What `vidssl retrieve QUERY` answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Neighbour:
    """One video of the gallery.

    Attributes:
        similarity: centred cosine of the two videos, −1 to 1 (two streams: their mean).
        label: None where the pack has none.
        begin, end: seconds of the neighbour's window that is most like one of the query's; None
            where the file did not tell its frame rate.
        first_frame, last_frame: the same in frames, the last one included.
        query_begin, query_end: seconds of that window of the query.
    """

    rank: int
    similarity: float
    video: str
    id: str
    label: str | None
    begin: float | None
    end: float | None
    first_frame: int
    last_frame: int
    query_begin: float | None
    query_end: float | None


@dataclass(frozen=True)
class QueryAnswer:
    """One query's neighbours, nearest first.

    Attributes:
        left_out: videos of the gallery that are the query itself.
        sheet: the contact sheet that was drawn.
    """

    query: str
    neighbours: list[Neighbour]
    left_out: list[str]
    sheet: Path | None = None


@dataclass(frozen=True)
class QueryResult:
    """What `vidssl retrieve QUERY` found.

    Attributes:
        features: what was compared, in words.
        checkpoints: those whose features they are.
        quarantined: (video, reason) of queries that could not be used.
    """

    features: str
    checkpoints: list[str]
    pack: str
    gallery: int
    answers: list[QueryAnswer]
    quarantined: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Returns the result as plain data, for --json."""
        data = asdict(self)
        for answer in data["answers"]:
            answer["sheet"] = str(answer["sheet"]) if answer["sheet"] else None
        data["quarantined"] = [{"video": v, "reason": r} for v, r in self.quarantined]
        return data
