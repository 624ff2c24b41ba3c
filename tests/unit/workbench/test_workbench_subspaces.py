"""Which directions styles share, against direct computations with whole matrices."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

from trainer.adapters.weights import LayerWeights
from trainer.cli import app
from trainer.errors import ConfigError
from trainer.styles.file import StyleFile
from trainer.styles.write import write_style
from trainer.workbench.anatomy import anatomy
from trainer.workbench.heatmap import colour, heatmap
from trainer.workbench.subspaces import Side, amplification, amplifications, by_chance, directions, overlaps, similarity

PATH = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
OUT, WIDTH = 10, 12


def layer(rank: int, seed: int, alpha: float = 3.0) -> LayerWeights:
    rng = torch.Generator().manual_seed(seed)
    return LayerWeights(torch.randn(rank, WIDTH, generator=rng), torch.randn(OUT, rank, generator=rng), alpha)


def style(**layers: LayerWeights) -> StyleFile:
    """Layers of the first block (``q``), the second (``q_1``) and so on."""
    found = {PATH.replace("s.0", f"s.{name[2:] or 0}", 1): layer for name, layer in layers.items()}
    return StyleFile(Path("s"), "kohya", found, {}, ())


def update(layer: LayerWeights) -> Tensor:
    return layer.scale * layer.up.double() @ layer.down.double()


@pytest.mark.parametrize("side", ["outputs", "inputs", "A"])
def test_similarity_is_that_of_equation_4_computed_directly(side: Side) -> None:
    one, other = layer(3, 1), layer(5, 2)
    found = similarity(directions(one, side), directions(other, side))
    assert found.shape == (3, 5)

    def leading(of: LayerWeights) -> Tensor:
        matrix = of.down.double() if side == "A" else update(of)
        u, _, vh = torch.linalg.svd(matrix)
        return u.T if side == "outputs" else vh

    a, b = leading(one), leading(other)
    for i in range(1, 4):
        for j in range(1, 6):
            direct = torch.linalg.matrix_norm(a[:i] @ b[:j].T) ** 2 / min(i, j)
            assert float(found[i - 1, j - 1]) == pytest.approx(float(direct), abs=1e-9)


def test_a_style_shares_all_with_itself_and_random_ones_what_chance_gives() -> None:
    own = directions(layer(4, 1))
    assert torch.allclose(similarity(own, own).diagonal(), torch.ones(4, dtype=torch.double))
    drawn = torch.stack(
        [similarity(directions(layer(4, seed)), directions(layer(4, 1000 + seed))) for seed in range(300)]
    )
    assert torch.allclose(drawn.mean(0), by_chance(4, 4, OUT), atol=0.03)


def test_amplification_is_the_papers_ratio_computed_directly() -> None:
    one = layer(2, 3)
    weight = torch.randn(OUT, WIDTH, generator=torch.Generator().manual_seed(4))
    u, sizes, vh = torch.linalg.svd(update(one))
    along = torch.linalg.matrix_norm(u[:, :2].T @ weight.double() @ vh[:2].T)
    size = sizes[:2].norm()
    found = amplification(PATH, one, weight)
    assert found.factor == pytest.approx(float(size / along))
    assert found.along_own == pytest.approx(float(torch.linalg.svdvals(weight.double())[:2].norm()))
    assert found.along_update < found.along_own < found.weight


def test_random_directions_meet_what_is_said_of_them() -> None:
    weight = torch.randn(OUT, WIDTH, generator=torch.Generator().manual_seed(4))
    drawn = [amplification(PATH, layer(2, seed), weight) for seed in range(300)]
    squares = torch.tensor([one.along_update**2 for one in drawn])
    assert float(squares.mean().sqrt()) == pytest.approx(drawn[0].along_random, rel=0.1)


def test_a_style_is_put_beside_the_weights_of_its_base() -> None:
    roots = {"unet": nn.ModuleDict({"to_q": nn.Linear(WIDTH, OUT), "to_v": nn.Linear(WIDTH, OUT)})}
    file = StyleFile(Path("s"), "kohya", {"unet.to_q": layer(2, 1), "unet.to_v": layer(3, 2)}, {}, ())
    first, second = amplifications(file, roots)
    assert (first.kind, first.rank, second.kind, second.rank) == ("to_q", 2, "to_v", 3)
    assert first.weight == pytest.approx(float(roots["unet"]["to_q"].weight.detach().norm()), rel=1e-5)


def test_layers_of_one_kind_are_averaged_as_far_as_all_ranks_reach() -> None:
    first = style(q=layer(3, 1), q_1=layer(2, 2), q_2=layer(2, 9))
    second = style(q=layer(4, 3), q_1=layer(4, 4))
    both = [similarity(directions(first.layers[path]), directions(second.layers[path]))[:2] for path in second.layers]
    (found,) = overlaps(first, second)
    assert (found.kind, len(found.layers)) == ("attn2.to_q", 2)
    assert torch.allclose(found.similarity, (both[0] + both[1]) / 2)


def test_styles_without_a_common_layer_are_refused() -> None:
    still = LayerWeights(torch.ones(1, WIDTH), torch.zeros(OUT, 1), 1.0)
    with pytest.raises(ConfigError, match="no layer in common"):
        overlaps(style(q=layer(2, 1)), style(q=still))


def test_darker_is_more_alike(tmp_path: Path) -> None:
    assert [sum(colour(value)) for value in (0.0, 0.3, 0.6, 1.0)] == sorted(
        (sum(colour(value)) for value in (0.0, 0.3, 0.6, 1.0)), reverse=True
    )
    one = style(q=layer(2, 1))
    picture = heatmap(overlaps(one, one), title="alike", names=("a", "b"))
    assert colour(1.0) in {color for _, color in picture.getcolors(1 << 20) or []}


def test_patina_inspect_compares_two_files_and_draws_them(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        write_style(tmp_path / f"{name}.safetensors", {PATH: layer(3, seed)}, metadata={"ss_seed": "42"})
    files = [str(tmp_path / "a.safetensors"), "--against", str(tmp_path / "b.safetensors")]
    png = tmp_path / "map.png"
    told = CliRunner().invoke(app, ["inspect", *files, "--json", "--heat-map", str(png)])
    assert told.exit_code == 0, told.output
    (kind,) = json.loads(told.output)["kinds"]
    assert kind["layers"] == [PATH]
    expected = similarity(directions(layer(3, 1)), directions(layer(3, 2)))
    assert torch.allclose(torch.tensor(kind["similarity"]).double(), expected, atol=1e-6)
    with Image.open(png) as picture:
        assert picture.size[0] > 200
    assert "began from the same seed" not in CliRunner().invoke(app, ["inspect", *files]).output
    assert "began from the same seed" in CliRunner().invoke(app, ["inspect", *files, "--directions", "inputs"]).output
    again = CliRunner().invoke(app, ["inspect", *files, "--heat-map", str(png)])
    assert again.exit_code == 2
    assert "exists already" in again.output
    wrong = CliRunner().invoke(app, ["inspect", *files, "--directions", "up"])
    assert "--directions is 'up', but should be one of outputs, inputs, A" in wrong.output


def test_anatomy_is_the_style_beside_the_weights_of_its_base() -> None:
    """A strong direction and a hundred times weaker ones: rank 1 would do, and the numbers are torch.linalg's."""
    rng = torch.Generator().manual_seed(4)
    weight = torch.randn(16, 12, generator=rng)
    down, up = torch.randn(4, 12, generator=rng), torch.randn(16, 4, generator=rng)
    up[:, 1:] *= 0.01
    path = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_q"
    still = path.replace("to_q", "to_k")
    layers = {path: LayerWeights(down, up, 8.0), still: LayerWeights(down, torch.zeros(16, 4), 8.0)}
    file = StyleFile(Path("it.safetensors"), "kohya", layers, {})
    found = anatomy(file, {path: weight}.get)
    moved, unmoved = found.layers
    update = 2.0 * up @ down
    left, sizes, right = torch.linalg.svd(update, full_matrices=False)
    assert (moved.kind, moved.rank, moved.effective) == ("attn2.to_q", 4, 1)
    assert moved.share == pytest.approx(float(update.norm() / weight.norm()), rel=1e-4)
    along = left[:, :4].T @ weight @ right[:4].T
    assert moved.factor == pytest.approx(float(update.norm() / along.norm()), rel=1e-3)
    assert found.smaller == 1
    assert found.kept == pytest.approx(float(sizes[0] ** 2 / sizes.square().sum()), rel=1e-4)
    assert (unmoved.norm, unmoved.effective, unmoved.share) == (0.0, 0, None)
    even = StyleFile(Path("it.safetensors"), "kohya", {path: LayerWeights(torch.eye(4, 12), torch.eye(16, 4), 4.0)}, {})
    assert anatomy(even).smaller is None
