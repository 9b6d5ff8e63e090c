"""UberNCE, ViCC and CMC from the command line to the end, on generated video."""

import pytest
from cli_workspace import SMALL, vidssl

from vidssl.workspace.checkpoints import TENSORS_FILE, checkpoint_encoder, checkpoint_tensors
from vidssl.workspace.workspace import Workspace

# Remembered features in use and prototypes moving within two epochs.
CLUSTERS = [*SMALL, "--set", "prototypes=6", "--set", "queue_from_epoch=0"]
CLUSTERS += ["--set", "freeze_prototypes_epochs=0"]


def test_vicc_on_each_stream_then_across_them(copied):
    workspace = copied["workspace"]
    for stream in ("rgb", "flow"):
        vidssl("pretrain", "--method", "vicc", "--stream", stream, *CLUSTERS, workspace=workspace)
    command = ["cotrain", "--method", "vicc", "--cycles", 1, *CLUSTERS, "--json"]
    runs = vidssl(*command, workspace=workspace).json["runs"]
    assert [r["artifact"] for r in runs] == [
        "checkpoint/rgb-vicc-cross/v001",
        "checkpoint/flow-vicc-cross/v001",
    ]
    found = Workspace(workspace)
    first, second = (found.resolve("checkpoint", r["artifact"]) for r in runs)
    single = {s: found.resolve("checkpoint", f"{s}-vicc") for s in ("rgb", "flow")}
    assert first.parents["student"] == single["rgb"].digest
    assert first.parents["partner"] == single["flow"].digest
    assert (second.parents["student"], second.parents["partner"]) == (
        single["flow"].digest, first.digest,
    )  # fmt: skip
    assert "prototype_entropy" in first.summary
    assert TENSORS_FILE in first.payload
    assert all(run["reused"] for run in vidssl(*command, workspace=workspace).json["runs"])
    vidssl("probe", "--checkpoint", "rgb-vicc-cross", workspace=workspace)
    vidssl("verify", workspace=workspace)


def test_the_student_across_streams_goes_on_with_its_prototypes(copied):
    workspace = copied["workspace"]
    vidssl("pretrain", "--method", "vicc", *CLUSTERS, workspace=workspace)
    # At a rate of nothing, prototypes stay what they were handed on as.
    still = [*CLUSTERS, "--set", "lr=0", "--set", "final_lr=0", "--set", "queue=0"]
    vidssl("cotrain", "--method", "vicc", *still, workspace=workspace)
    found = Workspace(workspace)
    before, after = (
        checkpoint_tensors(found.resolve("checkpoint", name))["prototypes"]
        for name in ("rgb-vicc", "rgb-vicc-cross")
    )
    unit = before / before.norm(dim=1, keepdim=True)
    assert (after - unit).abs().max() < 1e-6
    other = [*CLUSTERS, "--set", "prototypes=5", "--student", "rgb-vicc"]
    result = vidssl("cotrain", "--method", "vicc", *other, workspace=workspace, code=2)
    assert "--set prototypes=6" in result.err


def test_ubernce_learns_from_labels_and_refuses_to_do_without(copied, tmp_path):
    workspace = copied["workspace"]
    vidssl("pretrain", "--method", "ubernce", *SMALL, workspace=workspace)
    assert Workspace(workspace).resolve("checkpoint", "rgb-ubernce").summary["epochs"] == 2
    vidssl("pack", copied["videos"], "--labels", "none", workspace=workspace)
    for more in ([], ["--dry-run"]):
        result = vidssl(
            "pretrain", "--method", "ubernce", *SMALL, *more, workspace=workspace, code=1
        )
        assert "ubernce learns from labels" in result.err and "--labels" in result.err


def test_cmc_trains_both_streams_in_one_run(copied):
    workspace = copied["workspace"]
    command = ["cotrain", "--method", "cmc", *SMALL, "--json"]
    result = vidssl(*command, workspace=workspace).json
    assert result["artifact"] == "checkpoint/rgb-flow-cmc/v001"
    assert vidssl(*command, "--stream", "flow", workspace=workspace).json["reused"]
    found = Workspace(workspace)
    both = found.resolve("checkpoint", "rgb-flow-cmc")
    assert sorted(both.parents) == ["annotations", "pack"]
    assert both.recipe["streams"] == ["rgb", "flow"]
    for stream in ("rgb", "flow"):
        assert checkpoint_encoder(both, stream).spec.view == stream
        probed = vidssl("probe", "--stream", stream, "--json", workspace=workspace).json
        assert probed["results"]["checkpoint"] == "checkpoint/rgb-flow-cmc/v001"
        assert probed["artifact"] == f"probe/rgb-flow-cmc-{stream}/v001"
    both_probes = ["probe", "-c", "rgb-flow-cmc", "--stream", "rgb,flow", "--json"]
    probed = vidssl(*both_probes, workspace=workspace).json
    assert probed["artifact"] == "probe/rgb-flow-cmc/v001"
    assert [row["stream"] for row in probed["results"]["streams"]] == ["rgb", "flow"]
    evaluate = ["retrieve", "--evaluate", "--stream", "rgb,flow", "--json"]
    found_by = vidssl(*evaluate, workspace=workspace)
    assert found_by.json["results"]["features"] == "checkpoint/rgb-flow-cmc/v001 (rgb + flow)"
    assert "retrieve: checkpoint/rgb-flow-cmc/v001 (rgb + flow) on pack/main/v001" in found_by.err
    query = next(copied["videos"].rglob("*.mp4"))
    shown = vidssl("retrieve", query, "--stream", "rgb,flow", workspace=workspace)
    title = shown.out.partition("┏")[0].replace("\n", " ")
    assert title.count("checkpoint/rgb-flow-cmc/v001") == 1 and "(rgb + flow)" in title
    assert shown.err.count("rgb-flow-cmc") == 1
    tuned = ["finetune", "-c", "rgb-flow-cmc", "--stream", "rgb,flow", *SMALL[:-2]]
    said = vidssl(*tuned, workspace=workspace).err.partition(", recipe")[0]
    assert said.count("rgb-flow-cmc") == 1
    vidssl("verify", workspace=workspace)
    # It is one of the newest of both streams, and so serves as student and partner.
    vidssl("cotrain", "--k", 2, *SMALL, workspace=workspace)
    student = found.newest("checkpoint")
    assert student.parents["student"] == student.parents["partner"] == both.digest


def test_cmc_goes_on_from_the_newest_pretrained_pair(copied):
    workspace = copied["workspace"]
    command = ["cotrain", "--method", "cmc", *SMALL, "--init-from"]
    vidssl(*command, "newest", workspace=workspace)
    found = Workspace(workspace)
    both = found.newest("checkpoint")
    assert both.parents["init"] == found.resolve("checkpoint", "rgb-infonce").digest
    assert both.parents["init2"] == found.resolve("checkpoint", "flow-infonce").digest
    # Or from named ones; a stream that none of them has starts from scratch.
    vidssl(*command, "flow-infonce", "--name", "half", workspace=workspace)
    assert found.resolve("checkpoint", "half").parents["init"] == both.parents["init2"]


def test_another_method_takes_the_newest_student(copied):
    """Only the same method typed again means the run it made."""
    workspace = copied["workspace"]
    vidssl("cotrain", "--method", "vicc", *CLUSTERS, workspace=workspace)
    found = Workspace(workspace)
    newest = found.newest("checkpoint")
    assert newest.parents["student"] == found.resolve("checkpoint", "rgb-coclr").digest


def test_a_recipe_brings_its_method(finished):
    shown = vidssl(
        "cotrain", "--recipe", "vicc-cross-ucf101", "--dry-run", "--json",
        workspace=finished["workspace"],
    ).json["plan"]  # fmt: skip
    assert shown["makes"] == "checkpoint/rgb-vicc-cross"
    assert shown["recipe"]["train"]["optimizer"] == "larc"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["pretrain", "--method", "coclr"], "coclr is of vidssl cotrain"),
        (["cotrain", "--method", "infonce"], "infonce is of vidssl pretrain"),
        (["cotrain", "--method", "vic"], "did you mean vicc"),
        (["pretrain", "--recipe", "coclr-ucf101"], "try: vidssl cotrain --recipe coclr-ucf101"),
        (["cotrain", "--recipe", "coclr-ucf101", "--method", "vicc"], "leave --method away"),
        (["cotrain", "--method", "cmc", "--cycles", "2"], "leave --cycles away"),
        (["cotrain", "--method", "cmc", "--student", "rgb-infonce"], "give --init-from"),
        (["cotrain", "--init-from", "newest"], "use --student"),
        (["cotrain", "--method", "cmc", "--init-from", "rgb-infonc"], "did you mean rgb-infonce"),
        (["cotrain", "--recipe", "vicc-ucf101"], "try: vidssl pretrain --recipe vicc-ucf101"),
    ],
)
def test_a_mistake_is_one_sentence(finished, command, told):
    result = vidssl(*command, workspace=finished["workspace"], code=None)
    assert result.code in (1, 2) and told in result.err and "Traceback" not in result.err


def test_recipes_say_what_papers_report(tmp_path):
    from typer.testing import CliRunner

    from vidssl.cli import app

    shown = CliRunner().invoke(app, ["recipes"]).stdout
    assert "vicc-cross-ucf101" in shown and "reports UCF101 R@1 rgb 62.1" in shown
