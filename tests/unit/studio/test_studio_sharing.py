"""New styles of the library's own, and sharing one: what the studio keeps to itself stays with it."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from studio_parts import Parts

from trainer.adapters.weights import LayerWeights
from trainer.config import RunConfig
from trainer.errors import AdapterFileError, ConfigError, PublishError, StudioError
from trainer.publishing.parcel import Choices
from trainer.studio.library import Library
from trainer.studio.sharing import Sharing
from trainer.studio.store import State
from trainer.studio.worker.protocol import Compare, Convert, Dissect, FileRequest, Rework
from trainer.studio.worker.rework import compared, dissected, reworked
from trainer.studio.workshop import Workshop
from trainer.styles.inspect import inspect_file
from trainer.styles.read import read_style
from trainer.styles.write import write_again, write_style
from trainer.training.run_folder import RunFolder

PATH = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"


def worker(request: FileRequest) -> dict[str, Any]:
    """What the worker does with a request, without its process."""
    if isinstance(request, Rework):
        return {"notes": list(reworked(request))}
    if isinstance(request, Compare):
        return compared(request)
    if isinstance(request, Dissect):
        return dissected(request)
    if isinstance(request, Convert):
        write_again(Path(request.source), Path(request.target), request.layout, request.name, half=request.half)
        return {}
    return inspect_file(request.path).to_dict()


@pytest.fixture
def library(parts: Parts) -> Library:
    return Library(parts.store.db, parts.home, parts.store, parts.runs, worker)


@pytest.fixture
def workshop(parts: Parts, library: Library) -> Workshop:
    return Workshop(parts.home, library, worker)


def added(library: Library, folder: Path, name: str, seed: int = 0, **metadata: str) -> str:
    rng = torch.Generator().manual_seed(seed)
    layer = LayerWeights(torch.randn(4, 16, generator=rng), torch.randn(16, 4, generator=rng), 4.0)
    write_style(folder / f"{name}.safetensors", {PATH: layer}, metadata={"patina.family": "sd1", **metadata})
    return library.add(folder / f"{name}.safetensors")


def test_a_smaller_and_a_merged_copy_are_styles_of_their_own(
    library: Library, workshop: Workshop, tmp_path: Path
) -> None:
    ink, wash = added(library, tmp_path, "Ink", 1), added(library, tmp_path, "Wash", 2)
    small = library.card(workshop.smaller(ink, 2))
    assert (small.name, small.rank) == ("Ink 2", 2)
    both = library.card(workshop.merged([(ink, 0.5), (wash, 1.0)]))
    assert (both.name, both.rank, both.family) == ("Ink + Wash", 8, "sd1")
    assert {card.name for card in library.cards()} == {"Ink", "Wash", "Ink 2", "Ink + Wash"}
    layer = read_style(both.file).layers[PATH]
    one, two = (read_style(library.card(style).file).layers[PATH] for style in (ink, wash))
    wanted = 0.5 * (one.up @ one.down) + two.up @ two.down
    torch.testing.assert_close(layer.scale * (layer.up @ layer.down), wanted)


def test_a_part_is_a_style_of_its_own_and_two_styles_are_compared(
    library: Library, workshop: Workshop, tmp_path: Path
) -> None:
    ink, wash = added(library, tmp_path, "Ink", 1), added(library, tmp_path, "Wash", 2, trigger="wash style")
    layer, inner = read_style(library.card(ink).file).layers[PATH], PATH.replace("attn2", "attn1")
    other = LayerWeights(layer.down, -layer.up, layer.alpha)
    write_style(tmp_path / "Both.safetensors", {PATH: layer, inner: other}, metadata={"patina.family": "sd1"})
    part = library.card(workshop.part(library.add(tmp_path / "Both.safetensors"), "self"))
    assert part.name == "Both self"
    assert read_style(part.file).layers.keys() == {inner}
    with pytest.raises(ConfigError, match="matches no layer of Ink"):
        workshop.part(ink, "self")
    found = workshop.compared(ink, wash)
    assert (found.names, found.shared, found.alone) == (("Ink", "Wash"), 1, (0, 0))
    one, two = (read_style(library.card(style).file).layers[PATH] for style in (ink, wash))
    a, b = (layer.scale * (layer.up @ layer.down) for layer in (one, two))
    assert found.norms == pytest.approx((float(a.norm()), float(b.norm())), rel=1e-4)
    assert math.cos(found.angle) == pytest.approx(float((a * b).sum() / a.norm() / b.norm()), abs=1e-4)
    assert found.settings["trigger"] == (None, "wash style")
    assert workshop.compared(ink, ink).angle == pytest.approx(0.0, abs=1e-3)
    (same,), (apart,) = workshop.compared(ink, ink).shared_directions, found.shared_directions
    assert same.kind == "attn2.to_q"
    torch.testing.assert_close(torch.tensor(same.similarity).diagonal(), torch.ones(4))
    left = [torch.linalg.svd(update).U[:, 0] for update in (a, b)]
    assert apart.similarity[0][0] == pytest.approx(float((left[0] @ left[1]) ** 2), abs=1e-4)


def test_what_is_inside_agrees_with_direct_computation_and_a_file_cannot_name_a_folder_to_open(
    library: Library, workshop: Workshop, tmp_path: Path
) -> None:
    ink = added(library, tmp_path, "Ink", 1, ss_sd_model_name=str(tmp_path))
    found = workshop.anatomy(ink)
    (layer,) = found.layers
    own = read_style(library.card(ink).file).layers[PATH]
    sizes = torch.linalg.svdvals(own.scale * own.up @ own.down)
    assert layer.norm == pytest.approx(float(sizes.norm()), rel=1e-4)
    torch.testing.assert_close(torch.tensor(layer.sizes), sizes[:4], rtol=1e-4, atol=1e-4)
    held = sizes.square().cumsum(0) / sizes.square().sum()
    assert layer.effective == int((held < found.energy).sum()) + 1
    assert (layer.share, layer.factor) == (None, None), "the base of a file from elsewhere is not opened"


def test_a_refusal_names_the_style_and_not_where_the_studio_keeps_it(
    library: Library, workshop: Workshop, parts: Parts, tmp_path: Path
) -> None:
    ink = added(library, tmp_path, "Ink", 1)
    other = added(library, tmp_path, "Other", 2, **{"patina.family": "sdxl"})
    with pytest.raises(AdapterFileError, match=r"^Ink is made for Stable Diffusion 1 and Other for"):
        workshop.merged([(ink, 1.0), (other, 1.0)])
    assert list(parts.home.downloads.iterdir()) == []
    assert len(library.cards()) == 2


def test_a_download_in_half_precision_takes_half_the_room(library: Library, tmp_path: Path) -> None:
    ink = added(library, tmp_path, "Ink")
    whole, half = library.download(ink), library.download(ink, half=True)
    assert whole != half
    assert {layer.down.dtype for layer in read_style(half).layers.values()} == {torch.float16}
    assert {layer.down.dtype for layer in read_style(whole).layers.values()} == {torch.float32}


def test_a_style_is_packed_before_it_can_be_downloaded_or_sent(
    library: Library, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharing = Sharing(parts.home, library)
    ink = added(library, tmp_path, "Ink", ss_tag_frequency='{"my pictures": {"me": 1}}')
    with pytest.raises(StudioError, match="Nothing is packed"):
        sharing.zip(ink)
    packed = sharing.pack(ink, Choices(license="mit", base="someone/base"))
    assert list(packed.files) == ["Ink.safetensors", "Ink.json", "README.md"]
    assert packed.size > 1000
    assert any("ss_tag_frequency" in note for note in packed.notes)
    path, name = sharing.zip(ink)
    assert name == "Ink.zip"
    with zipfile.ZipFile(path) as archive:
        assert b"license: mit" in archive.read("parcel/README.md")
        assert b"my pictures" not in archive.read("parcel/Ink.safetensors")
    sent: list[Any] = []
    monkeypatch.setattr(
        "trainer.studio.sharing.push", lambda parcel, repo, private: sent.append((repo, private)) or "x"
    )
    assert sharing.push(ink, Choices(repo="me/ink"), private=True) == "x"
    assert sent == [("me/ink", True)]
    with pytest.raises(PublishError, match="USER/NAME"):
        sharing.push(ink, Choices(repo="ink"))
    with pytest.raises(PublishError, match="no id on the hub"):
        sharing.pack(ink, Choices(base="/models/base"))


def test_a_finished_run_is_shared_with_its_settings(library: Library, parts: Parts, tmp_path: Path) -> None:
    folder = RunFolder(parts.home.runs / "run-1")
    folder.write_config(RunConfig(name="Ink", trigger="ink style"))
    write_style(folder.adapter_file, {PATH: LayerWeights(torch.ones(2, 16), torch.ones(16, 2), 2.0)})
    parts.store.add("run-1", "Renamed", {"name": "Ink", "trigger": "ink style"}, State.FINISHED)
    packed = Sharing(parts.home, library).pack("run-1", Choices())
    assert list(packed.files) == ["Renamed.safetensors", "README.md", "Renamed.json", "config.toml"]
