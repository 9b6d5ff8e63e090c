"""Builds tests/data/formats/finetune-v1.tar.xz: a finetuned network and its figures, version 1.

    python tests/support/build_golden_finetune.py FOLDER

It was run once, and its archive stays for ever, as that of tests/support/build_golden_formats.py,
whose workspace the network was finetuned in; the rest of that workspace is not in the archive.
"""

from __future__ import annotations

import sys
import tarfile
import tempfile
from pathlib import Path

import build_golden_formats as golden

from vidssl.evaluation.labelled_split import find_labels
from vidssl.stages import finetune
from vidssl.training.finetuning import plan_finetuning
from vidssl.workspace.checkpoints import save_encoder, save_tensors, weights_digest
from vidssl.workspace.workspace import Workspace

ARCHIVE = "finetune-v1.tar.xz"
LABELS = ("checkpoint/rgb-infonce-finetuned/v001", "finetune/rgb-infonce/v001")


def build(root: Path) -> Workspace:
    """Publishes a network as if finetuned from the golden encoder, and tests it in ten crops.

    What it holds are numbers by rule, since trained ones do not compress.
    """
    golden.build(root)
    workspace = Workspace(root / "workspace")
    options = finetune.FinetuneOptions(recipe="cpu", crops="ten", device="cpu")
    (start,) = finetune.find_starts(workspace, options)
    labelled = find_labels(workspace, start.pack, [start.checkpoint], None)
    resolved = finetune.resolve_for(options, finetune.choose_method(options), start.view)
    made = plan_finetuning(start, labelled, resolved)
    method = made.make_method()
    state = method.classifier.state_dict()
    state = {name: golden.weight(name, value.shape) for name, value in state.items()}
    method.classifier.load_state_dict(state)
    with workspace.open_run("checkpoint", made.name, made.identity(), made.parents) as run:
        for encoder in method.encoders.values():
            save_encoder(encoder, run.folder)
        save_tensors(method.extra_state, run.folder)
        digest = weights_digest(method.encoders, method.extra_state)
        run.publish(digest, {"method": "finetune", "backbone": "tiny", "epochs": 30})
    finetune.run(workspace, options)  # finds it, and only tests
    return workspace


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    with (
        tempfile.TemporaryDirectory() as root,
        tarfile.open(folder / ARCHIVE, "w:xz", preset=9) as archive,
    ):
        workspace = build(Path(root))
        for label in ("workspace.json", *LABELS):
            archive.add(workspace.root / label, f"workspace/{label}")
    print(f"wrote {folder / ARCHIVE}, {(folder / ARCHIVE).stat().st_size} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
