"""Fields that users set: each type from a text or a value, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from vidssl.base.errors import UsageError
from vidssl.base.typed_settings import configure


@dataclass(frozen=True)
class Everything:
    count: int = 1
    rate: float = 0.5
    word: str = "a"
    on: bool = False
    milestones: tuple[int, ...] = (60, 80)
    shares: tuple[float, ...] = (0.5,)
    batch: int | None = None


@pytest.mark.parametrize(
    ("field", "said", "meant"),
    [
        ("count", "3", 3),
        ("count", 3, 3),
        ("rate", "1e-3", 0.001),
        ("rate", "2", 2.0),
        ("word", "adam", "adam"),
        ("word", "2024", "2024"),
        ("on", "true", True),
        ("milestones", "[3, 5]", (3, 5)),
        ("milestones", "[]", ()),
        ("shares", "[0.5, 1]", (0.5, 1)),
        ("batch", "16", 16),
    ],
)
def test_a_value_comes_in_the_fields_type(field, said, meant):
    found = getattr(configure("a test", Everything(), [(field, said)]), field)
    assert found == meant and type(found) is type(meant)


@pytest.mark.parametrize(
    ("field", "said", "told"),
    [
        ("count", "2.5", "a whole number"),
        ("count", "true", "a whole number"),
        ("count", "many", "a whole number"),
        ("rate", "true", "a number"),
        ("rate", "inf", "a number"),
        ("rate", "nan", "a number"),
        ("on", "1", "true or false"),
        ("milestones", "3", "a list of whole numbers"),
        ("milestones", "[0.5]", "a list of whole numbers"),
        ("shares", "[true]", "a list of numbers"),
        ("batch", "half", "a whole number"),
        ("count", str(2**63), "a whole number"),
        ("count", "9" * 5000, "a whole number"),
        ("rate", "9" * 400, "a number"),
        ("milestones", "[" * 5000, "a list of whole numbers"),
        ("milestones", [2**63], "a list of whole numbers"),
    ],
)
def test_what_does_not_fit_is_one_sentence(field, said, told):
    with pytest.raises(UsageError, match=f"{field} takes {told}"):
        configure("a test", Everything(), [(field, said)])


def test_a_field_that_is_none_is_told_with_the_nearest():
    with pytest.raises(UsageError, match=r"a test has no setting cuont \(did you mean count\?\)"):
        configure("a test", Everything(), [("cuont", "3")])
