"""Methods: one file each, all under one contract (:mod:`vidssl.objectives.contract`)."""

from vidssl.objectives.coclr import CoCLR, CoCLRConfig
from vidssl.objectives.cocon import CoCon, CoConConfig
from vidssl.objectives.contract import Clock, Needs, Objective, StepOutput
from vidssl.objectives.cpc import CPC, CPCConfig
from vidssl.objectives.infonce import InfoNCE, InfoNCEConfig

OBJECTIVES: dict[str, type[Objective]] = {
    "infonce": InfoNCE,
    "coclr": CoCLR,
    "cpc": CPC,
    "cocon": CoCon,
}

__all__ = [
    "CPC",
    "OBJECTIVES",
    "CPCConfig",
    "Clock",
    "CoCLR",
    "CoCLRConfig",
    "CoCon",
    "CoConConfig",
    "InfoNCE",
    "InfoNCEConfig",
    "Needs",
    "Objective",
    "StepOutput",
]
