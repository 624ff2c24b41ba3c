"""What a method of adapting frozen layers has to say; each method is one file beside this one.

A method is told apart from what it works on: it is a few functions over the named tensors of one layer (its *parts*),
and its fields are its settings. The bank holds the tensors, the gates and the stack, and asks. Nothing here needs torch
to be imported, because settings and help texts ask for methods, too.

Shapes: r rank, R columns of gates, b rows of the batch, in and out of the frozen layer.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from trainer.adapters.weights import LayerWeights
from trainer.errors import RunError
from trainer.randomness import stable_seed

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Values = Mapping[str, "Tensor"]
"""The tensors of one layer by the names of its parts."""


@dataclass(frozen=True)
class Site:
    """A frozen layer on which an adapter is to start.

    Attributes:
        path: root-qualified.
        base: the frozen module itself; to be read, never to be changed.
        rank, alpha: as asked for.
        seed: of the adapter.
        tokens: ids of the trigger's tokens, where the layer is a text encoder's embedding.
    """

    path: str
    base: Any
    rank: int
    alpha: float
    seed: int
    tokens: tuple[int, ...] = ()

    def generator(self, purpose: str = "init") -> torch.Generator:
        """A generator on the CPU that depends on nothing but seed, purpose and path."""
        import torch

        return torch.Generator().manual_seed(stable_seed(self.seed, purpose, self.path))


@dataclass(frozen=True)
class Parts:
    """The tensors of one layer, fp32.

    Attributes:
        trained: become parameters.
        kept: change or were drawn, but are not trained; they go into checkpoints.
        derived: can be made again from the seed and the base, and may be one tensor for many layers; not saved.
    """

    trained: Mapping[str, Tensor]
    kept: Mapping[str, Tensor] = field(default_factory=dict)
    derived: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Method(ABC):
    """A method with its settings, which are the fields of a subclass.

    Attributes:
        name: as written in a config.
        summary: what a user should know when choosing, after the name and without a full stop.
        source: the paper.
        readers: of a method whose files hold more than plain LoRA, a sentence on who understands them; else empty.
        stacks: the update is ``B diag(g) A x`` with the two matrices that `factors` gives; those of all adapters in a
            layer then share one pair of products. Otherwise `update` is called.
        ranked: whether the rank says how many values it trains and how large its files are.
        site: what it adapts: linear layers and convolutions, the attention layers that chosen projections are of, or
            words in the token embeddings of the text encoders, whatever layers are chosen.
        changes_weights: whether what it does can be said as a change of the layer's weight or bias.
        layouts: of files that have a place for what it makes.
        trains: whether a run can choose it; else it is only read from other tools' files.
        needs_base: of a method that is read only, whether what it does depends on the frozen weight; it then goes into
            the bank as `as_lora` writes it.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    source: ClassVar[str]
    readers: ClassVar[str] = ""
    stacks: ClassVar[bool] = True
    ranked: ClassVar[bool] = True
    site: ClassVar[Literal["layer", "attention", "words"]] = "layer"
    changes_weights: ClassVar[bool] = True
    layouts: ClassVar[tuple[str, ...]] = ("kohya", "diffusers")
    trains: ClassVar[bool] = True
    needs_base: ClassVar[bool] = False

    @abstractmethod
    def start(self, site: Site) -> Parts:
        """The parts on one layer, such that the update is zero, bit for bit.

        Raises:
            ConfigError: the rank does not suit the layer.
        """

    def fits(self, base: Any) -> bool:
        """Whether the method can adapt a frozen layer; those that it cannot are left as they are."""
        return True

    def begin(self, sites: Sequence[Site]) -> list[Parts]:
        """The parts on all layers; for methods whose layers share tensors or a budget."""
        return [self.start(site) for site in sites]

    @abstractmethod
    def gate_factors(self, rank: int, alpha: float) -> Sequence[float]:
        """What each of its R columns of gates is multiplied by at strength 1; of a stacking method, R is the rank."""

    def factors(self, values: Values) -> tuple[Tensor, Tensor]:
        """A (r, in[, kh, kw]) and B (out, r[, 1, 1]) of a method that stacks."""
        raise NotImplementedError(f"{self.name} has no factors")

    def update(self, values: Values, base: Any, x: Tensor, y: Tensor, gates: Tensor) -> Tensor:
        """What a method that does not stack adds to the layer's output.

        Args:
            base: the frozen module.
            x: the layer's input, (b, ..., in) or (b, in, H, W).
            y: the frozen layer's output for it, bias included.
            gates: (1 or b, R), fp32, all 0 at strength 0, where the update must be zero.
        """
        raise NotImplementedError(f"{self.name} has no update of its own")

    def merged(self, values: Values, base: Any, rank: int, alpha: float) -> dict[str, Tensor]:
        """The update at strength 1 of the frozen module's parameters by name, fp32; strengths scale it linearly.

        Raises:
            RunError: it cannot be expressed so.
        """
        if not self.stacks:
            raise RunError(f"An adapter made with {self.name} cannot be merged into the base.")
        down, up = self.factors(values)
        scaled = up.flatten(1) * up.new_tensor(self.gate_factors(rank, alpha))
        return {"weight": (scaled @ down.flatten(1)).view(base.weight.shape)}

    @abstractmethod
    def weights(self, values: Values, rank: int, alpha: float) -> LayerWeights:
        """One layer as style files hold it; down and up are what every reader understands, who applies alpha / r."""

    def read(self, weights: LayerWeights, base: Any) -> Parts:
        """The parts of one layer from what a file holds; the bank counts it with the file's rank and alpha.

        Only needed by methods that `weights` names; the files of the others are read as plain LoRA.
        """
        raise NotImplementedError(f"{self.name} is written as plain LoRA")

    def sides(self, weights: LayerWeights) -> tuple[int, tuple[int, ...]]:
        """Outputs and (in[, kh, kw]) of the layer that the weights are for, as far as the file tells its shape."""
        return weights.up.shape[0], tuple(weights.down.shape[1:])

    def shaped(self, weights: LayerWeights, shape: tuple[int, ...]) -> LayerWeights | None:
        """The weights for a layer of the shape (out, in[, kh, kw]); None where they are of another layer.

        A linear layer's matrices may be stored as 1 x 1 convolutions and the other way round.
        """
        down, up = weights.down, weights.up
        if len(shape) == 2 and down.dim() == 4 and down.shape[2:] == (1, 1):
            down, up = down.flatten(1), up.flatten(1)
        if len(shape) == 4 and down.dim() == 2:
            down, up = down[:, :, None, None], up[:, :, None, None]
        fits = down.shape[1:] == shape[1:] and up.shape[0] == shape[0]
        return replace(weights, down=down, up=up) if fits else None

    def as_lora(self, weights: LayerWeights, base: Tensor | None = None) -> LayerWeights:
        """The same update of a layer with two matrices and alpha, as every reader of files understands it, fp32.

        It is exact: where no narrower pair will do, the rank is the layer's own. What is LoRA and something more (a
        magnitude, a bias) stays as it is.

        Args:
            base: the frozen weight; only for methods that need it.
        """
        return weights

    def norm(self, weights: LayerWeights) -> float:
        """The Frobenius norm of the update at strength 1; not a number where it depends on the base."""
        import torch

        down, up = weights.down.double().flatten(1), weights.up.double().flatten(1)
        identity = torch.eye(weights.rank, dtype=torch.double)
        if up.shape == identity.shape and torch.equal(up, identity):
            return abs(weights.scale) * float(down.norm())
        # ||B A||^2 = <B^T B, A A^T>: two r x r products instead of a matrix as large as the layer.
        square = float(((up.T @ up) * (down @ down.T)).sum())
        return abs(weights.scale) * (square**0.5 if not square < 0 else 0.0)

    def layers(self, state: Mapping[str, Tensor], rank: int, alpha: float) -> dict[str, LayerWeights]:
        """`weights` of all layers in an adapter's state (see `Bank.state_dict_of`), without any base."""
        parts: dict[str, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            path, _, part = key.rpartition(".")
            parts.setdefault(path, {})[part] = tensor
        return {path: self.weights(values, rank, alpha) for path, values in parts.items()}

    def rate_factor(self, part: str) -> float:
        """Learning rate of a part, relative to the run's."""
        return 1.0

    def penalty(self, layers: Sequence[Values]) -> Tensor | None:
        """What is added to the loss, a scalar over all layers of an adapter; None adds nothing."""
        return None

    def after_step(self, layers: Sequence[Values], step: int, steps: int) -> None:  # noqa: B027 (most need none)
        """Called after optimizer step ``step`` of ``steps``, gradients still there; may change parts in place."""


def convolves(base: Any) -> bool:
    """Whether a frozen layer is a convolution; asking a quantised one for its weight would compute that."""
    return hasattr(base, "kernel_size")
