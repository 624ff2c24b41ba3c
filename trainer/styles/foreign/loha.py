"""LoHa as LyCORIS and PEFT write it: ``hada_w1_a``, ``hada_w1_b``, ``hada_w2_a``, ``hada_w2_b``, and two cores.

``alpha / r (w1_a w1_b) * (w2_a w2_b)``, value by value; r is the first pair's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from trainer.adapters.weights import LayerWeights
from trainer.styles.foreign.form import Form, Layer, check_size

if TYPE_CHECKING:
    from torch import Tensor


class LohaForm(Form):
    """Each pair is (out, r) and (r, in * kh * kw); with cores, (r, r, kh, kw), it is (r, out) and (r, in)."""

    name: ClassVar[str] = "LoHa"
    marks: ClassVar[frozenset[str]] = frozenset(f"hada_{x}" for x in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2"))
    parts: ClassVar[frozenset[str]] = marks | {"alpha"}

    def odd(self, part: str, layer: Layer) -> str:
        return weight_decomposed(self.name, part, layer) or super().odd(part, layer)

    def check_shapes(self, layer: Layer) -> None:
        factors = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
        for part in factors:
            if part not in layer:
                layer.refuse(f"is incomplete: {layer.where} has no {part}.")
            if len(layer.shape(part)) != 2:
                layer.disagree(*factors)
        if ("hada_t1" in layer) != ("hada_t2" in layer):
            layer.refuse(f"is incomplete: {layer.where} has only one of hada_t1 and hada_t2.")
        cores = "hada_t1" in layer
        sizes = []
        for i in (1, 2):
            a, b = layer.shape(f"hada_w{i}_a"), layer.shape(f"hada_w{i}_b")
            core = layer.shape(f"hada_t{i}") if cores else (b[0], b[0])
            rank, out = a if cores else a[::-1]
            if rank != core[0] or b[0] != core[1] or len(core) not in (2, 4):
                layer.disagree(f"hada_w{i}_a", f"hada_w{i}_b", *([f"hada_t{i}"] if cores else []))
            sizes.append((out, b[1], *core[2:]))
        if sizes[0] != sizes[1]:
            layer.disagree(*factors)
        check_size(layer, sizes[0][0], math.prod(sizes[0][1:]))

    def rank(self, layer: Layer) -> int:
        return layer.shape("hada_w1_b")[0]

    def build(self, tensors: Mapping[str, Tensor], alpha: float) -> LayerWeights:
        down, up = _half(tensors, 1)
        down2, up2 = _half(tensors, 2)
        # With a core its first side may be another rank than the one that alpha counts by.
        alpha = alpha / tensors["hada_w1_b"].shape[0] * down.shape[0] if "hada_t1" in tensors else alpha
        return LayerWeights(down, up, alpha, "loha", {"down2": down2, "up2": up2})


def weight_decomposed(form: str, part: str, layer: Layer) -> str | None:
    """What to say where magnitudes of DoRA come with another form than LoRA."""
    if part not in ("magnitude", "dora_scale"):
        return None
    return f"DoRA's magnitudes on {form} in {layer.where}, which Patina does not read; it reads DoRA on LoRA."


def _half(tensors: Mapping[str, Tensor], i: int) -> tuple[Tensor, Tensor]:
    a, b = tensors[f"hada_w{i}_a"], tensors[f"hada_w{i}_b"]
    if f"hada_t{i}" not in tensors:
        return b, a
    return with_core(tensors[f"hada_t{i}"], a, b)


def with_core(core: Tensor, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """A and B of a Tucker form: the core, (s, r, kh, kw), times ``b``, (r, in), and ``a``, (s, out), turned."""
    import torch

    down = torch.einsum("ijkl,jn->inkl", core.float(), b.float())
    return down, a.float().T[:, :, None, None]
