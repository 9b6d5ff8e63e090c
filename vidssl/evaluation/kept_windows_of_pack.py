"""Opens what is kept of a pack's windows, for an encoder whose backbone has a fixed part."""

from __future__ import annotations

import torch

from vidssl.backbones import Encoder
from vidssl.evaluation.features import WindowProtocol, list_windows
from vidssl.evaluation.kept_windows import KeptWindows, compute_fixed_part
from vidssl.shards import ShardReader
from vidssl.views import get_view
from vidssl.workspace.artifacts import Artifact
from vidssl.workspace.kept_arrays_of import keeper_of


def kept_windows_of(
    pack: Artifact,
    reader: ShardReader,
    network: object,
    protocol: WindowProtocol,
    device: torch.device | str,
) -> KeptWindows | None:
    """Returns what is kept of all windows of a pack.

    Returns:
        None where nothing would be: the network is no encoder with a fixed part, it runs on another
        device than a CPU, or the disk has no room.
    """
    if not isinstance(network, Encoder) or torch.device(device).type != "cpu":
        return None
    spec, part = network.spec, network.fixed_part
    if part is None:
        return None
    windows = list_windows(spec, protocol, reader.frame_count(spec.view))
    if not len(windows.starts):
        return None
    crops, side = len(protocol.boxes(1.0)), spec.size
    stored = get_view(spec.view).channels  # the network may be shown others
    frames = torch.zeros(1, crops, spec.window, side, side, stored, dtype=torch.uint8)
    shape = compute_fixed_part([(0, 0)], lambda _: frames.numpy(), spec, part)[0].shape
    of = {
        "windows": protocol.as_dict(spec),
        "view": spec.view,
        "shown": spec.presentation,
        "clip": [spec.blocks, spec.frames, spec.stride, spec.size],
    }
    keeper = keeper_of(pack, spec.backbone)
    arrays = keeper.open_arrays(of, len(windows.starts), shape, "<f4")
    return None if arrays is None else KeptWindows(arrays, windows.starts, windows.offsets)
