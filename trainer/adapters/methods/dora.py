"""DoRA: length and direction of a weight's rows learn apart, ``m (W0 + alpha / r B A) / ||W0 + alpha / r B A||``.

Source: Liu et al. 2024, arXiv 2402.09353. As its section 4.3 proposes, no gradient flows through the norms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from trainer.adapters.methods.lora import check_room, random_down, zero_up
from trainer.adapters.methods.method import Method, Parts, Site, Values, convolves
from trainer.adapters.weights import LayerWeights

if TYPE_CHECKING:
    from torch import Tensor

_SMALLEST_NORM = 1e-8


@dataclass(frozen=True)
class Dora(Method):
    """With ``c = m / ||W0 + alpha / r B A||`` an adapter of strength s adds ``s ((c - 1) W0 x + c alpha / r B A x)``.

    Parts: ``down`` and ``up`` as in LoRA; ``magnitude`` is m, (out,), and ``scale`` is alpha / r. Norms are those of
    the rows of ``W.flatten(1)``.
    """

    name: ClassVar[str] = "dora"
    summary: ClassVar[str] = (
        "also learns how strong each output is, which holds more at low ranks, but steps are slower and few programs "
        "read the file"
    )
    source: ClassVar[str] = "Liu et al. 2024, arXiv 2402.09353"
    readers: ClassVar[str] = (
        "Patina reads both layouts of DoRA exactly, diffusers and PEFT that of diffusers; of kohya's, ComfyUI and "
        "Forge divide by the norms of the base alone, which looks a little different, A1111 takes them along the other "
        "axis, and diffusers leaves them out"
    )
    stacks: ClassVar[bool] = False

    def start(self, site: Site) -> Parts:
        import torch

        check_room(site, site.rank)
        down, up = random_down(site), zero_up(site)
        scale = torch.tensor(site.alpha / site.rank, device="cpu")
        # On the base's device and by the same function as in each pass, so that c is exactly 1 at the start.
        place = site.base.weight.device
        magnitude = _norms(site.base, down.to(place), up.to(place), scale.to(place))
        return Parts({"down": down, "up": up, "magnitude": magnitude}, derived={"scale": scale})

    def gate_factors(self, rank: int, alpha: float) -> Sequence[float]:
        return (1.0,)

    def update(self, values: Values, base: Any, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        down, up, scale = values["down"], values["up"], values["scale"]
        sides = (1,) * (y.dim() - 2) if convolves(base) else ()
        c = (values["magnitude"] / _norms(base, down, up, scale)).view(-1, *sides)
        frozen = y if base.bias is None else y - base.bias.view(-1, *sides)
        low_rank = scale * _through(base, x, down.to(x.dtype), up.to(x.dtype))
        update = (c - 1) * frozen + c * low_rank
        return (update * gates.view(-1, *[1] * (y.dim() - 1))).to(y.dtype)

    def merged(self, values: Values, base: Any, rank: int, alpha: float) -> dict[str, Tensor]:
        down, up, scale = values["down"], values["up"], values["scale"]
        c = values["magnitude"] / _norms(base, down, up, scale)
        frozen = base.weight.float().flatten(1)
        update = c[:, None] * (frozen + scale * (up.flatten(1) @ down.flatten(1))) - frozen
        return {"weight": update.view(base.weight.shape)}

    def weights(self, values: Values, rank: int, alpha: float) -> LayerWeights:
        return LayerWeights(values["down"], values["up"], alpha, self.name, {"magnitude": values["magnitude"]})

    def read(self, weights: LayerWeights, base: Any) -> Parts:
        import torch

        magnitude = weights.extra["magnitude"].float().flatten()
        return Parts(
            {"down": weights.down.float(), "up": weights.up.float(), "magnitude": magnitude},
            derived={"scale": torch.tensor(weights.scale, device="cpu")},
        )


def _norms(base: Any, down: Tensor, up: Tensor, scale: Tensor) -> Tensor:
    """``||W0 + scale B A||`` of each row, (out,), a constant to the gradient."""
    import torch

    with torch.no_grad():
        merged = base.weight.float().flatten(1) + scale * (up.flatten(1) @ down.flatten(1))
        return torch.linalg.vector_norm(merged, dim=1).clamp_min(_SMALLEST_NORM)


def _through(base: Any, x: Tensor, down: Tensor, up: Tensor) -> Tensor:
    """``B A x``, where A goes over a picture as the frozen convolution does."""
    import torch.nn.functional as F

    if not convolves(base):
        return F.linear(F.linear(x, down), up)
    return F.conv2d(F.conv2d(x, down, None, base.stride, base.padding, base.dilation), up)
