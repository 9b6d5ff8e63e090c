"""The result of `vidssl retrieve QUERY`: each query's nearest neighbours."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Neighbour:
    """One video of the gallery.

    Attributes:
        similarity: centred cosine of the two videos, −1 to 1; with several views, the mean.
        label: None if the pack has none.
        begin, end: of the neighbour's window that is most similar to a window of the query, in
            seconds; None if the frame rate is unknown.
        first_frame, last_frame: the same in frames, the last one included.
        query_begin, query_end: that window of the query, in seconds.
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
        sheet: path of the contact sheet; None if none was drawn.
    """

    query: str
    neighbours: list[Neighbour]
    left_out: list[str]
    sheet: Path | None = None


@dataclass(frozen=True)
class QueryResult:
    """The result for all queries.

    Attributes:
        features: what was compared, in words.
        checkpoints: labels of the checkpoints whose features were compared.
        pack: label of the pack that was searched.
        gallery: how many videos it has.
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
