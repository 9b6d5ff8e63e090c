"""Methods: one file each, all under one contract (:mod:`vidssl.objectives.contract`)."""

from vidssl.objectives.cmc import CMC, CMCConfig
from vidssl.objectives.coclr import CoCLR, CoCLRConfig
from vidssl.objectives.cocon import CoCon, CoConConfig
from vidssl.objectives.contract import Clock, Needs, Objective, StepOutput
from vidssl.objectives.cpc import CPC, CPCConfig
from vidssl.objectives.finetune import Classifier, Finetune, FinetuneConfig
from vidssl.objectives.infonce import InfoNCE, InfoNCEConfig
from vidssl.objectives.linear import Linear, LinearConfig
from vidssl.objectives.ubernce import UberNCE, UberNCEConfig
from vidssl.objectives.vicc import ViCC, ViCCConfig
from vidssl.objectives.vicc_cross import ViCCCross, ViCCCrossConfig

# By the stage that trains with them and the name they have there; the first is its default. One
# word may mean two methods: ViCC on one stream, and ViCC across streams.
METHODS: dict[str, dict[str, type[Objective]]] = {
    "pretrain": {"infonce": InfoNCE, "ubernce": UberNCE, "vicc": ViCC, "cpc": CPC},
    "cotrain": {"coclr": CoCLR, "vicc": ViCCCross, "cmc": CMC, "cocon": CoCon},
    "finetune": {"finetune": Finetune, "linear": Linear},
}
OBJECTIVES: dict[str, type[Objective]] = {
    objective.name: objective for methods in METHODS.values() for objective in methods.values()
}

__all__ = [
    "CMC",
    "CPC",
    "METHODS",
    "OBJECTIVES",
    "CMCConfig",
    "CPCConfig",
    "Classifier",
    "Clock",
    "CoCLR",
    "CoCLRConfig",
    "CoCon",
    "CoConConfig",
    "Finetune",
    "FinetuneConfig",
    "InfoNCE",
    "InfoNCEConfig",
    "Linear",
    "LinearConfig",
    "Needs",
    "Objective",
    "StepOutput",
    "UberNCE",
    "UberNCEConfig",
    "ViCC",
    "ViCCConfig",
    "ViCCCross",
    "ViCCCrossConfig",
]
