"""A frozen model in 4 or 8 bits a weight, as QLoRA trains on it: each weight is widened where it is used.

NF4 has the sixteen levels that suit normally distributed weights, with a scale for each block of 64 weights, and the
scales in 8 bits themselves (double quantisation): 4.13 bits a weight. int8 has 255 even levels and a scale in fp32 for
each block: 8.5 bits. Both are bitsandbytes', which has kernels for cards and for processors.

Source: Dettmers et al. 2023, arXiv 2305.14314.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from trainer.bases.fetched import Fetched, FetchedConv2d, FetchedLinear
from trainer.bases.mapped import in_pieces, own_tensors
from trainer.bases.quiet import import_bitsandbytes
from trainer.errors import ConfigError

Quantize = Literal["nf4", "int8"]
BLOCK = 64
"""Weights that share a scale."""


def check_installed(quantize: str) -> None:
    """Refuse to quantise without the package for it, before anything is loaded.

    Raises:
        ConfigError: with how to install it.
    """
    if quantize in get_args(Quantize) and find_spec("bitsandbytes") is None:
        raise ConfigError(
            f"base.quantize is {quantize!r}, which needs the package bitsandbytes: pip install bitsandbytes, or use "
            "'off'."
        )


@torch.no_grad()
def quantise(model: nn.Module, how: Quantize, *, device: torch.device, dtype: torch.dtype) -> None:
    """Quantise the linear layers and convolutions of a model's blocks, in place.

    What is outside of the numbered blocks stays as it is: the layers that a picture enters and leaves by, and those
    that read time and size, are a hundredth of the weights and every answer depends on them.

    Args:
        model: in any place and number format, without adapters.
        device: computes the codes, so that they do not depend on where the model waits.
        dtype: what weights are widened to.

    Raises:
        ConfigError: bitsandbytes is not installed.
    """
    check_installed(how)
    for path, module in in_pieces(model.named_modules(), lambda item: own_tensors(item[1])):
        kind = _KINDS.get(type(module))
        in_a_block = any(part.isdecimal() for part in path.split("."))
        if kind is not None and in_a_block and module.weight.numel() % BLOCK == 0:
            weight = module._parameters.pop("weight")
            assert weight is not None
            module.__class__ = kind
            module.keep(weight, how, device, dtype)


def weight_bytes(model: nn.Module) -> int:
    """What a model's weights take, with the scales of those that are quantised."""
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    for module in model.modules():
        if isinstance(module, Quantised):
            tensors |= {id(tensor): tensor for tensor in module.scales()}
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def is_quantised(model: nn.Module) -> bool:
    """Whether `quantise` changed any of the model's layers."""
    return any(isinstance(module, Quantised) for module in model.modules())


class Quantised(Fetched):
    """What quantised layers share: ``weight`` is made anew from its codes whenever it is asked for.

    Its gradient is never needed, and the pass back to the input widens it once more.
    """

    codes: Tensor

    def keep(self, weight: Tensor, how: Quantize, device: torch.device, dtype: torch.dtype) -> None:
        """Take a weight over: its codes come to lie where it lay."""
        place = weight.device
        # A card's convolutions read channels last, so their codes are in that order.
        self._order = (0, 2, 3, 1) if weight.dim() == 4 and device.type == "cuda" else tuple(range(weight.dim()))
        self._how = how
        ordered = weight.detach().to(device, torch.float32).permute(self._order).contiguous()
        self._sides = tuple(ordered.shape)
        rows = ordered.view(-1, BLOCK)
        library = _library()
        if how == "nf4":
            codes, scales = library.quantize_4bit(
                rows, blocksize=BLOCK, quant_type="nf4", compress_statistics=True, quant_storage=torch.uint8
            )
        else:
            codes, scales = library.quantize_blockwise(
                rows, code=library.create_linear_map().to(device), blocksize=BLOCK
            )
        scales.dtype = dtype
        self._scales = scales
        self.register_buffer("codes", codes.to(place))
        self._follow()

    @property
    def weight(self) -> Tensor:
        """The weight in the type it computes in, in the shape of the layer."""
        library = _library()
        widen = library.dequantize_4bit if self._how == "nf4" else library.dequantize_blockwise
        ordered: Tensor = widen(self.codes, self._scales).view(self._sides)
        return ordered.permute(tuple(self._order.index(axis) for axis in range(ordered.dim())))

    def scales(self) -> list[Tensor]:
        """The tensors beside the codes."""
        state = self._scales
        return [state.absmax, *((state.offset, state.state2.absmax) if state.nested else ())]

    def _apply(self, fn: Any, recurse: bool = True) -> Quantised:
        super()._apply(fn, recurse)
        self._follow()
        return self

    def _follow(self) -> None:
        if self._scales.absmax.device != self.codes.device:
            self._scales.to(self.codes.device)


class QuantisedLinear(Quantised, FetchedLinear):  # type: ignore[override]
    """A quantised `nn.Linear`."""


class QuantisedConv2d(Quantised, FetchedConv2d):  # type: ignore[override]
    """A quantised `nn.Conv2d`."""


_KINDS: dict[type[nn.Module], type[Quantised]] = {nn.Linear: QuantisedLinear, nn.Conv2d: QuantisedConv2d}


def _library() -> Any:
    """bitsandbytes' functions."""
    import_bitsandbytes()
    import bitsandbytes.functional

    return bitsandbytes.functional
