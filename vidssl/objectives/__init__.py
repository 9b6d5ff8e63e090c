"""Methods: one file each, all under one contract (:mod:`vidssl.objectives.contract`)."""

from vidssl.objectives.coclr import CoCLR, CoCLRConfig
from vidssl.objectives.contract import Clock, Needs, Objective, StepOutput
from vidssl.objectives.infonce import InfoNCE, InfoNCEConfig

OBJECTIVES: dict[str, type[Objective]] = {
    "infonce": InfoNCE,
    "coclr": CoCLR,
}

__all__ = [
    "OBJECTIVES",
    "Clock",
    "CoCLR",
    "CoCLRConfig",
    "InfoNCE",
    "InfoNCEConfig",
    "Needs",
    "Objective",
    "StepOutput",
]
