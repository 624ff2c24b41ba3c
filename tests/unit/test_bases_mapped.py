"""Opening a base holds its weights once: what was copied out of the mapped files is let go of."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_families import build, save_folder, save_settings, save_single_file

from trainer.bases import mapped
from trainer.bases.open import load_base
from trainer.config import BaseConfig

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(sys.platform != "linux", reason="only Linux is told to let go of pages"),
]

MIB = 2**20


def resident(folder: Path) -> int:
    """Bytes of the files in a folder that this process holds at the moment."""
    held, ours = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace").splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            ours = str(folder) in line
        elif ours and line.startswith("Rss:"):
            held += 1024 * int(line.split()[1])
    return held


def test_pages_that_were_read_are_let_go_of_and_come_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "PIECE", 2 * MIB)
    given = {f"layer {number:02}": torch.randn(MIB // 4) for number in range(16)}
    # A hub's cache has no endings in its names.
    save_file(given, tmp_path / "blob")
    with safe_open(tmp_path / "blob", framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in given}
    most = 0
    for name, tensor in mapped.in_pieces(sorted(tensors.items()), lambda item: item[1:]):
        assert torch.equal(tensor.clone(), given[name])
        most = max(most, resident(tmp_path))
    assert MIB <= most < 6 * MIB
    assert resident(tmp_path) < MIB
    assert all(torch.equal(tensors[name], tensor) for name, tensor in given.items())


@pytest.mark.parametrize("layout", ["folder", "single file"])
@pytest.mark.parametrize("quantize", ["off", "nf4"])
def test_a_base_is_not_held_twice_while_it_is_opened(
    layout: str, quantize: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if quantize != "off":
        pytest.importorskip("bitsandbytes", reason="installed with the developers' tools")
    model, settings = build("sdxl"), None
    if layout == "folder":
        source = save_folder(model, tmp_path / "base")
    else:
        source = save_single_file(model, tmp_path / "base.safetensors")
        settings = str(save_settings(model, tmp_path / "settings"))
    whole = sum(file.stat().st_size for file in tmp_path.rglob("*.safetensors"))
    piece = whole // 16
    monkeypatch.setattr(mapped, "PIECE", piece)
    held: list[int] = []
    let_go = mapped.let_go

    def watched(addresses: Collection[int]) -> None:
        held.append(resident(tmp_path))
        let_go(addresses)

    monkeypatch.setattr(mapped, "let_go", watched)
    config = BaseConfig(source=str(source), config_folder=settings, quantize=quantize)
    base = load_base(config, device=torch.device("cpu"), dtype=torch.float32)
    assert len(held) > 16
    # Tensors this small are all touched by the reading itself, and four threads let go of their first pieces.
    assert max(held[8:]) < whole / 2
    assert resident(tmp_path) == 0
    assert all(torch.equal(a, b) for a, b in zip(model.vae.parameters(), base.vae.parameters(), strict=True))
