"""Runs any of the mutated films, and prints a table: mutate_containers.py FIRST CASES."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

CHUNK = 500


def main(first: int, cases: int) -> None:
    # Imported here: each worker imports what stands above.
    from container_mutations import FILMS, write_film
    from mutated_films import Tally, run_cases, table, undamaged

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        films = {film: write_film(folder / f"v.{film}", film) for film in FILMS}
        expected = undamaged(folder, films)
        tally = Tally()
        for start in range(first, first + cases, CHUNK):
            with tempfile.TemporaryDirectory(dir=folder) as chunk:
                for film, data in films.items():
                    Path(chunk, f"sound.{film}").write_bytes(data)
                count = min(CHUNK, first + cases - start)
                run_cases(Path(chunk), films, expected, start, count, tally)
            print(f"{tally.cases} of {cases}, {len(tally.faults)} faults", file=sys.stderr)
        print(table(tally))


if __name__ == "__main__":
    sys.path.append(str(Path(__file__).parents[1] / "support"))
    main(int(sys.argv[1]), int(sys.argv[2]))
