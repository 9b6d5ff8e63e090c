"""Methods: one file each, all under one contract (:mod:`vidssl.methods.method`)."""

from vidssl.methods.cmc import CMC, CMCConfig
from vidssl.methods.coclr import CoCLR, CoCLRConfig
from vidssl.methods.cocon import CoCon, CoConConfig
from vidssl.methods.cpc import CPC, CPCConfig
from vidssl.methods.finetune import Classifier, Finetune, FinetuneConfig
from vidssl.methods.infonce import InfoNCE, InfoNCEConfig
from vidssl.methods.linear_classifier import Linear, LinearConfig
from vidssl.methods.method import (
    BatchSpec,
    Method,
    StepOutput,
    StepState,
)
from vidssl.methods.ubernce import UberNCE, UberNCEConfig
from vidssl.methods.vicc import ViCC, ViCCConfig
from vidssl.methods.vicc_cross import ViCCCross, ViCCCrossConfig

# Methods by the stage that trains with them and by their name there; the first is the default. One
# name may mean two methods: ViCC on one view, and ViCC across views.
METHODS_BY_STAGE: dict[str, dict[str, type[Method]]] = {
    "pretrain": {"infonce": InfoNCE, "ubernce": UberNCE, "vicc": ViCC, "cpc": CPC},
    "cotrain": {"coclr": CoCLR, "vicc": ViCCCross, "cmc": CMC, "cocon": CoCon},
    "finetune": {"finetune": Finetune, "linear": Linear},
}
METHODS: dict[str, type[Method]] = {
    method_class.name: method_class
    for of_stage in METHODS_BY_STAGE.values()
    for method_class in of_stage.values()
}

__all__ = [
    "CMC",
    "CPC",
    "METHODS",
    "METHODS_BY_STAGE",
    "BatchSpec",
    "CMCConfig",
    "CPCConfig",
    "Classifier",
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
    "Method",
    "StepOutput",
    "StepState",
    "UberNCE",
    "UberNCEConfig",
    "ViCC",
    "ViCCConfig",
    "ViCCCross",
    "ViCCCrossConfig",
]
