"""Tables on a screen that is too narrow for them: lines instead, so that no figure is cut."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

FOLDED = 12  # characters that a column needs whose text may be cut into lines anywhere
BORDERS = 3  # characters beside each column's text
NO_LIMIT = 10_000  # characters


def fitted(shown: RenderableType, console: Console) -> RenderableType:
    """Returns what is shown, with lines instead of every table that the console has no room for."""
    if isinstance(shown, Group):
        return Group(*(fitted(part, console) for part in shown.renderables))
    if isinstance(shown, Table) and _width(shown, console) > console.width:
        return Group(*_lines(shown, console))
    return shown


def _width(table: Table, console: Console) -> int:
    """Returns the characters that a table needs at least to show all it has."""
    return 1 + sum(BORDERS + _column_width(column, table, console) for column in table.columns)


def _column_width(column: Column, table: Table, console: Console) -> int:
    cells = [*([column.header] if table.show_header else []), *column.cells]
    options = console.options.update(max_width=NO_LIMIT)
    sizes = [Measurement.get(console, options, cell) for cell in cells]
    least = max((s.maximum if column.no_wrap else s.minimum for s in sizes), default=0)
    return min(least, FOLDED) if column.overflow == "fold" else least


def _lines(table: Table, console: Console) -> Iterator[Text]:
    """Returns a table's title and rows as lines, each cell with the head of its column.

    The first of two cells is the other one's head.
    """
    if table.title:
        yield _text(table.title, console)
    rows = list(zip(*(column.cells for column in table.columns), strict=True))
    for row in rows:
        cells = [_text(cell, console) for cell in row]
        if not table.show_header:
            yield Text("  ").join(cell for cell in cells if cell.plain)
        elif len(cells) == 2:
            yield Text.assemble("  ", cells[0], ": ", cells[1])
        else:
            for column, cell in zip(table.columns, cells, strict=True):
                if cell.plain:
                    yield Text.assemble("  ", _text(column.header, console), ": ", cell)
            yield Text("")


def _text(cell: RenderableType, console: Console) -> Text:
    return console.render_str(cell) if isinstance(cell, str) else cell  # type: ignore[return-value]
