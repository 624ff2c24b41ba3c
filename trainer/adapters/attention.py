"""Adapters on a whole attention layer, which see its queries and add to its output.

The layer itself stays where it is, because its projections may carry adapters of their own; a hook adds the updates.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from trainer.adapters.layers import GatedLayer

_NAME = "gated_attention"
_PROJECTION = re.compile(r"(.+)\.(?:to_[qkv]|to_out\.0)")


def is_attention(module: nn.Module) -> bool:
    """Whether a module is an attention layer of diffusers, with projections of its own."""
    return all(hasattr(module, name) for name in ("to_q", "to_k", "to_v", "to_out", "heads"))


def attentions_of(paths: Sequence[str]) -> list[str]:
    """The attention layers that projections belong to, each once, in their order."""
    found = (match[1] for path in paths if (match := _PROJECTION.fullmatch(path)))
    return list(dict.fromkeys(found))


def frozen(projection: nn.Module) -> nn.Module:
    """An attention layer's projection without the adapters on it."""
    return projection.base if isinstance(projection, GatedLayer) else projection


class GatedAttention(GatedLayer):
    """`GatedLayer` of an attention layer: a part of that layer, so that it moves with it."""

    def __init__(self, base: nn.Module) -> None:
        self._handle: RemovableHandle | None = None
        super().__init__(base)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "base":
            # Not as a module of this one, whose part it is: that would never end.
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def hang(self) -> None:
        """Let the attention layer answer with the adapters."""
        if self._handle is None:
            self.base.add_module(_NAME, self)
            self._handle = self.base.register_forward_hook(self._added, with_kwargs=True)

    def lift(self) -> None:
        """Leave the attention layer as it was."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None
            del self.base._modules[_NAME]

    def merge_in(self, merged: Mapping[str, Tensor]) -> None:
        raise NotImplementedError("what is done to a whole attention layer is no change of a weight")

    def _added(self, base: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], answer: Tensor) -> Tensor:
        if self._empty:
            return answer
        x = args[0] if args else kwargs["hidden_states"]
        gates = self._open(x.shape[0])
        total = answer
        for share, first, last in self._apart:
            total = total + share.method.update(share.values(), self.base, x, answer, gates[:, first:last])
        return total

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> GatedAttention:
        self.apply_to_own(fn, recurse)
        return self
