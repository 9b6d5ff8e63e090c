"""Follows people from frame to frame, and looks for new ones where somebody is missing.

The points of a person in one frame say where to look in the next, which is cheaper than to detect
them again. The detector runs while nobody is followed, where somebody was lost, and from time to
time while fewer people are followed than are wanted.
"""

from __future__ import annotations

import numpy as np

from vidssl.views.blazepose.detector import PersonDetector
from vidssl.views.blazepose.landmarks import LandmarkNetwork, Person
from vidssl.views.blazepose.regions import Region, overlap

SAME_PERSON = 0.5  # overlap of two regions from which they are about one person
LOOK_AROUND_EVERY = 10  # frames


class Tracker:
    """Finds the people in one frame after another of one video.

    Args:
        people: most that are followed at once.
        min_score: of a new detection.
        min_presence: of a person in a region; below, the person is lost.
    """

    def __init__(
        self,
        detector: PersonDetector,
        network: LandmarkNetwork,
        people: int,
        min_score: float,
        min_presence: float,
    ) -> None:
        self._detector, self._network = detector, network
        self._people, self._min_score, self._min_presence = people, min_score, min_presence
        self._regions: list[Region] = []
        self._since_detection = 0

    def follow(self, frame: np.ndarray) -> list[Person]:
        """Returns the people in the next frame, uint8 [H, W, 3]; none if nobody is found."""
        followed = len(self._regions)
        seen: list[Person] = []
        for region in self._regions:
            self._see(frame, region, seen)
        self._since_detection += 1
        late = self._since_detection >= LOOK_AROUND_EVERY
        if len(seen) < self._people and (not seen or len(seen) < followed or late):
            self._since_detection = 0
            for detection in self._detector.find(frame, self._min_score):
                if len(seen) >= self._people:
                    break
                self._see(frame, detection.region, seen)
        self._regions = [person.next_region for person in seen if person.next_region is not None]
        return seen

    def _see(self, frame: np.ndarray, region: Region, seen: list[Person]) -> None:
        """Adds the person in a region to `seen`, if there is one who is not in it yet."""
        if any(overlap(region, _place(other)) > SAME_PERSON for other in seen):
            return
        person = self._network.look(frame, region)
        if not person.presence >= self._min_presence:
            return
        if not any(overlap(_place(person), _place(other)) > SAME_PERSON for other in seen):
            seen.append(person)


def _place(person: Person) -> Region:
    return person.next_region or person.region
