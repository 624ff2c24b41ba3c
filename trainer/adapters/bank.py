"""The bank: any number of low-rank adapters on frozen models, each with its own strength for every image of a batch.

Layers carry root-qualified dotted paths, such as ``unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_q``.
Each adapter owns its parameters; that several of them share one pair of matrix products is a view for the forward pass.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from trainer.adapters.attention import GatedAttention, attentions_of, is_attention
from trainer.adapters.blocks import factor_of
from trainer.adapters.gates import GateBoard
from trainer.adapters.layers import GatedConv2d, GatedLayer, GatedLinear, Share, gated, place_of
from trainer.adapters.methods import method_named, method_of
from trainer.adapters.methods.method import Method, Parts, Site, Values
from trainer.adapters.spec import Adapter, AdapterSpec, Learning
from trainer.adapters.targets import select
from trainer.adapters.weights import LayerWeights
from trainer.errors import ConfigError, RunError

__all__ = ["Adapter", "AdapterSpec", "Bank", "GatedConv2d", "GatedLinear", "tile"]


class Bank:
    """Adapters on frozen models.

    Strengths are written into buffers of the layers and hold until they are written again. They must not change
    between a forward pass and its backward pass.

    Args:
        roots: the models by root name, the denoiser first: ``{"unet": unet}``, and text encoders as ``te``, ``te1``,
            ``te2``. They are frozen here. Adapters attach to them as long as the bank lives; `detach` undoes it.
        pad_rank: round the stacked rank up to 8, 16, 32, 64 ..., so that a compiled model is not compiled again when
            another adapter joins; use it with `packed`.
    """

    def __init__(self, roots: Mapping[str, nn.Module], *, pad_rank: bool = False) -> None:
        for root, model in roots.items():
            if any(isinstance(module, GatedLayer) for module in model.modules()):
                raise ValueError(f"{root} carries the layers of another bank; detach that one first")
            model.requires_grad_(False)
        self._roots = dict(roots)
        self._pad_rank = pad_rank
        self._adapters: dict[str, Adapter] = {}
        self._layers: dict[str, GatedLayer] = {}
        self._boards = {root: GateBoard([], []) for root in self._roots}

    @property
    def names(self) -> tuple[str, ...]:
        """The adapters in the order of loading, which is that of the columns of a strengths tensor."""
        return tuple(self._adapters)

    @property
    def layers(self) -> Mapping[str, GatedLayer]:
        """The wrapped layers by root-qualified path."""
        return self._layers

    @property
    def roots(self) -> Mapping[str, nn.Module]:
        return self._roots

    @property
    def merged(self) -> bool:
        """Whether updates are inside the weights at present."""
        return any(layer.merged for layer in self._layers.values())

    def __getitem__(self, name: str) -> Adapter:
        if name not in self._adapters:
            known = ", ".join(self._adapters) or "none"
            raise ConfigError(f"There is no adapter {name!r} here; loaded: {known}.")
        return self._adapters[name]

    def add(
        self,
        name: str,
        targets: str | Sequence[str] = "cross",
        *,
        rank: int = 8,
        alpha: float | None = None,
        method: str = "lora",
        settings: Mapping[str, Any] | None = None,
        dropout: float = 0.0,
        seed: int,
        blocks: Mapping[str, float] | None = None,
        tokens: Mapping[str, Sequence[int]] | None = None,
    ) -> Adapter:
        """Attach a new, trainable adapter whose update is zero.

        Each layer's start is drawn from a hash of (seed, path): it depends neither on the order of injection, nor on
        other adapters, nor on the global generator. The adapter's strength is 1 until strengths are set.

        Args:
            targets: a named target or regular expression over the first root, or root-qualified paths.
            rank: at least 1; more than a layer's width is useless and refused there.
            alpha: None is the rank.
            settings: of the method, see `trainer.adapters.methods.method_named`.
            blocks: factors on the alpha of layers by block (`trainer.adapters.blocks`); at 0 they do not learn.
            tokens: ids of the trigger's tokens by text encoder, for methods that train words; their number is the rank.

        Raises:
            ConfigError: a name in use, or a rank, alpha, method, target or dropout that cannot be.
        """
        alpha = float(rank if alpha is None else alpha)
        self._check_new(name, dropout)
        if rank < 1:
            raise ConfigError(f"adapter.rank is {rank}, but should be at least 1.")
        if not (math.isfinite(alpha) and alpha > 0):
            raise ConfigError(f"adapter.alpha is {alpha}, but should be greater than 0.")
        chosen = method_named(method, settings)
        denoiser = next(iter(self._roots))
        paths = (
            [f"{denoiser}.{path}" for path in select(self._roots[denoiser], targets)]
            if isinstance(targets, str)
            else targets
        )
        words = {
            f"{root}.{name}": tuple(ids)
            for root, ids in (tokens or {}).items()
            for name, module in self._roots[root].named_modules()
            if module is self._words_of(root)
        }
        if chosen.site == "attention":
            paths = attentions_of(paths)
        elif chosen.site == "words":
            paths = list(words)
            rank = max(map(len, words.values()), default=rank)
            alpha = float(rank)
        alphas = {path: alpha * factor_of(path, blocks or {}) for path in paths}
        sites = [
            Site(path, self._base(path), rank, alphas[path], seed, words.get(path, ()))
            for path in paths
            if alphas[path] and chosen.fits(self._base(path))
        ]
        if not sites:
            raise ConfigError(
                f"adapter.targets names no layer that adapter.method {method!r} can adapt: choose more layers, such as "
                "'all-linear'."
            )
        shares = {
            site.path: self._share(name, site.path, chosen, parts, rank, site.alpha, dropout, trainable=True)
            for site, parts in zip(sites, chosen.begin(sites), strict=True)
        }
        spec = AdapterSpec(
            name,
            rank,
            alpha,
            tuple(shares),
            method=method,
            alphas={site.path: site.alpha for site in sites if site.alpha != alpha},
            dropout=dropout,
        )
        return self._attach(spec, shares, ())

    def load(
        self,
        name: str,
        weights: Mapping[str, LayerWeights],
        *,
        notes: tuple[str, ...] = (),
        trainable: bool = False,
        dropout: float = 0.0,
    ) -> Adapter:
        """Attach weights that exist already; ranks and alphas may differ from layer to layer.

        The adapter's strength is 1 until strengths are set. For a file, see `trainer.styles.fit.attach`.

        Args:
            weights: at least one layer, by root-qualified path as the models here have it and in their shapes.
            notes: what a person should know about the weights, kept with the adapter.

        Raises:
            ConfigError: a name in use, or a path that these models do not have.
        """
        rank = Counter(layer.rank for layer in weights.values()).most_common(1)[0][0]
        alpha = Counter(layer.alpha for layer in weights.values()).most_common(1)[0][0]
        self._check_new(name, dropout)
        shares: dict[str, Share] = {}
        for path, layer in weights.items():
            method = method_of(layer)
            parts = method.read(layer, self._base(path))
            shares[path] = self._share(name, path, method, parts, layer.rank, layer.alpha, dropout, trainable=trainable)
        spec = AdapterSpec(
            name,
            rank,
            alpha,
            tuple(shares),
            method=Counter(layer.method for layer in weights.values()).most_common(1)[0][0],
            ranks={path: layer.rank for path, layer in weights.items() if layer.rank != rank},
            alphas={path: layer.alpha for path, layer in weights.items() if layer.alpha != alpha},
            dropout=dropout,
        )
        return self._attach(spec, shares, notes)

    def remove(self, name: str) -> None:
        """Take an adapter out; layers that no other adapter uses are put back as they were."""
        self._refuse_merged("removing an adapter")
        for path in self[name].spec.targets:
            layer = self._layers[path]
            layer.release(name)
            if not layer.shares:
                self._put(path, layer.base)
                del self._layers[path]
        column = self.names.index(name)
        del self._adapters[name]
        self._rebuild(lambda s: torch.cat([s[:, :column], s[:, column + 1 :]], dim=1))

    def weigh(self, name: str, blocks: Mapping[str, float]) -> None:
        """Let an adapter count more or less in blocks of the denoiser, on top of its strength.

        Args:
            blocks: factors by name (`trainer.adapters.blocks`); blocks that are not named count as trained.

        Raises:
            ConfigError: an unknown name.
            RunError: the bank is merged.
        """
        self._refuse_merged("weighing blocks")
        shares = {self._share_of(name, path): factor_of(path, blocks) for path in self[name].spec.targets}
        if all(share.block_factor == factor for share, factor in shares.items()):
            return
        for share, factor in shares.items():
            share.block_factor = factor
        self._rebuild(lambda strengths: strengths)

    def set_strengths(self, strengths: Tensor | Mapping[str, float], *, roots: Iterable[str] | None = None) -> None:
        """Say how strongly each adapter counts from now on: 0 is the base, 1 as trained.

        Args:
            strengths: (rows, adapters) with one row for all images of a batch or one row for each; or a mapping
                of names, where those that are missing get 0.
            roots: the models concerned; None is all. Text encoders may see other batches than the UNet.

        Raises:
            ConfigError: an unknown name, or a strength that is no finite number.
            ValueError: a tensor of the wrong shape.
            RunError: the bank is merged.
        """
        self._refuse_merged("setting strengths")
        if isinstance(strengths, Mapping):
            strengths = self._row(strengths)
        if strengths.dim() != 2 or strengths.shape[1] != len(self._adapters) or not strengths.shape[0]:
            raise ValueError(
                f"strengths have the shape {tuple(strengths.shape)}, but should be (rows, {len(self._adapters)})"
            )
        for root in self._roots if roots is None else roots:
            self._model(root)
            self._boards[root].write(strengths)

    @property
    def strengths(self) -> Tensor:
        """The strengths of the first root, (rows, adapters), fp32."""
        return self.strengths_of(next(iter(self._roots)))

    def strengths_of(self, root: str) -> Tensor:
        """The strengths of one root, (rows, adapters), fp32."""
        return self._boards[root].strengths.clone()

    def close(self) -> None:
        """Strength 0 for all: the models answer as their bases do."""
        self.set_strengths(torch.zeros(1, len(self._adapters)))

    @contextlib.contextmanager
    def strengths_held(self) -> Iterator[None]:
        """Within this context strengths may be set for something else; afterwards they are as before."""
        before = {root: board.strengths.clone() for root, board in self._boards.items()}
        names = self.names
        try:
            yield
        finally:
            if self.names == names and not self.merged:
                for root, strengths in before.items():
                    self._boards[root].write(strengths)

    def parameters_of(self, name: str) -> list[tuple[str, nn.Parameter]]:
        """An adapter's parameters as (key, parameter), sorted by key: ``<path>.<part>``, such as ``<path>.down``."""
        return list(self[name].parameters)

    def learning_of(self, name: str) -> Learning:
        """What the adapter's method asks of its training."""
        shares = {path: self._share_of(name, path) for path in self[name].spec.targets}
        by_method: dict[Method, list[Share]] = {}
        for share in shares.values():
            by_method.setdefault(share.method, []).append(share)

        def rate_factor(key: str) -> float:
            path, _, part = key.rpartition(".")
            return shares[path].method.rate_factor(part)

        def extra_loss() -> Tensor | None:
            found = [method.penalty([share.values() for share in own]) for method, own in by_method.items()]
            terms = [term for term in found if term is not None]
            return torch.stack(terms).sum() if terms else None

        def after_step(done: int, steps: int) -> None:
            with torch.no_grad():
                for method, own in by_method.items():
                    method.after_step([share.values() for share in own], done, steps)

        return Learning(rate_factor, extra_loss, after_step)

    def state_dict_of(self, name: str) -> dict[str, Tensor]:
        """An adapter's tensors as a checkpoint holds them, by key as in `parameters_of`; they share its memory."""
        found = {
            f"{path}.{part}": tensor.detach()
            for path in self[name].spec.targets
            for part, tensor in self._share_of(name, path).state_dict(keep_vars=True).items()
        }
        return dict(sorted(found.items()))

    def load_state_of(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors, as `state_dict_of` gave them, into an adapter.

        Raises:
            RunError: keys or shapes are not those of the adapter.
        """
        own = self.state_dict_of(name)
        if own.keys() != tensors.keys():
            odd = min(own.keys() ^ tensors.keys())
            raise RunError(f"The saved state does not fit the adapter {name!r}: {odd} is on one side only.")
        for key, tensor in own.items():
            if tensor.shape != tensors[key].shape:
                raise RunError(
                    f"The saved state does not fit the adapter {name!r}: {key} is {tuple(tensors[key].shape)}, "
                    f"but should be {tuple(tensor.shape)}."
                )
        with torch.no_grad():
            for key, tensor in own.items():
                tensor.copy_(tensors[key])

    def weights_of(self, name: str, tensors: Mapping[str, Tensor] | None = None) -> dict[str, LayerWeights]:
        """An adapter as `trainer.styles.write.write_style` takes it, with alpha in the convention of files.

        Args:
            tensors: other values for some keys of `state_dict_of`, such as a moving average.
        """
        weights: dict[str, LayerWeights] = {}
        for path in self[name].spec.targets:
            share = self._share_of(name, path)
            values = {
                part: (tensors or {}).get(f"{path}.{part}", value).detach() for part, value in share.values().items()
            }
            weights[path] = share.method.weights(values, share.rank, share.alpha)
        return weights

    @contextlib.contextmanager
    def packed(self, dtype: torch.dtype | None = None) -> Iterator[None]:
        """Stack and cast all factors once, for many passes without gradients (previews, compiled inference).

        The adapters' values are those of the moment of entry. Passes with gradients enabled ignore it.

        Args:
            dtype: type to compute in; None is each layer's own.
        """
        layers = list(self._layers.values())
        for layer in layers:
            layer.pack(dtype)
        try:
            yield
        finally:
            for layer in layers:
                layer.unpack()

    @contextlib.contextmanager
    def detached(self) -> Iterator[None]:
        """Within this context the models are as they were without a bank; the adapters wait."""
        self._refuse_merged("detaching for a while")
        for path, layer in self._layers.items():
            self._put(path, layer.base)
        try:
            yield
        finally:
            for path, layer in self._layers.items():
                layer.follow_base()
                self._put(path, layer)
            self._rebuild(lambda s: s)

    def detach(self) -> None:
        """Put every original module back, bit for bit, and forget all adapters."""
        for path, layer in self._layers.items():
            layer.restore()
            self._put(path, layer.base)
        self._layers.clear()
        self._adapters.clear()
        self._boards = {root: GateBoard([], []) for root in self._roots}

    def _attach(self, spec: AdapterSpec, shares: Mapping[str, Share], notes: tuple[str, ...]) -> Adapter:
        for path, share in shares.items():
            layer = self._layers.get(path)
            if layer is None:
                root, inner = path.split(".", 1)
                module = self._roots[root].get_submodule(inner)
                layer = GatedAttention(module) if is_attention(module) else gated(module, pad_rank=self._pad_rank)
                self._layers[path] = layer
                self._put(path, layer)
            layer.attach(share)
        parameters = [
            (f"{path}.{part}", parameter)
            for path, share in shares.items()
            for part, parameter in share.named_parameters()
        ]
        adapter = Adapter(spec, tuple(sorted(parameters, key=lambda item: item[0])), notes)
        self._adapters[spec.name] = adapter
        self._rebuild(lambda s: torch.cat([s, s.new_ones(s.shape[0], 1)], dim=1))
        return adapter

    def _share(
        self,
        name: str,
        path: str,
        method: Method,
        parts: Parts,
        rank: int,
        alpha: float,
        dropout: float,
        *,
        trainable: bool,
    ) -> Share:
        device = place_of(self._base(path))
        # Made outside inference mode even when called inside it: such tensors could never be trained.
        with torch.inference_mode(False), torch.no_grad():

            def own(tensors: Values) -> dict[str, Tensor]:
                return {part: tensor.to(device, torch.float32, copy=True) for part, tensor in tensors.items()}

            derived = {part: tensor.to(device, torch.float32) for part, tensor in parts.derived.items()}
            share = Share(
                name,
                method,
                Parts(own(parts.trained), own(parts.kept), derived),
                rank=rank,
                alpha=alpha,
                dropout=dropout,
                trainable=trainable,
            )
        return share.train(self._module(path).training)

    def _share_of(self, name: str, path: str) -> Share:
        return next(share for share in self._layers[path].shares if share.adapter == name)

    def _base(self, path: str) -> nn.Module:
        """The frozen module at a path, wrapped or not."""
        module = self._module(path)
        return module.base if isinstance(module, GatedLayer) else module

    def _module(self, path: str) -> nn.Module:
        root, _, inner = path.partition(".")
        try:
            module = self._model(root).get_submodule(inner)
        except AttributeError:
            raise ConfigError(f"adapter.targets names {path}, which this base does not have.") from None
        if not isinstance(module, GatedLayer | nn.Linear | nn.Conv2d | nn.Embedding) and not is_attention(module):
            raise ConfigError(
                f"adapter.targets names {path}, which is a {type(module).__name__} and cannot be adapted."
            )
        return module

    def _words_of(self, root: str) -> nn.Module:
        """The token embedding of a text encoder, wrapped or not."""
        found: nn.Module = self._model(root).get_input_embeddings()  # type: ignore[operator]
        return found

    def _model(self, root: str) -> nn.Module:
        if root not in self._roots:
            raise ConfigError(f"There is no model {root!r} here; there are {', '.join(self._roots)}.")
        return self._roots[root]

    def _put(self, path: str, module: nn.Module) -> None:
        layer = self._layers.get(path)
        if isinstance(layer, GatedAttention):
            if module is layer:
                layer.hang()
            else:
                layer.lift()
            return
        root, inner = path.split(".", 1)
        self._roots[root].set_submodule(inner, module)

    def _check_new(self, name: str, dropout: float) -> None:
        self._refuse_merged("loading an adapter")
        if name in self._adapters:
            raise ConfigError(f"There is an adapter named {name!r} already; give this one another name.")
        if not 0 <= dropout < 1:
            raise ConfigError(f"adapter.dropout is {dropout}, but should be at least 0 and below 1.")

    def _row(self, strengths: Mapping[str, float]) -> Tensor:
        for name, strength in strengths.items():
            self[name]
            if not math.isfinite(strength):
                raise ConfigError(f"The strength of {name!r} is {strength}, but should be a finite number.")
        return torch.tensor([[float(strengths.get(name, 0.0)) for name in self._adapters]])

    def _refuse_merged(self, what: str) -> None:
        if self.merged:
            raise RunError(f"The adapters are merged into the base; unmerge before {what}.")

    def _rebuild(self, change: Callable[[Tensor], Tensor]) -> None:
        for root, board in self._boards.items():
            layers = [layer for path, layer in self._layers.items() if path.split(".", 1)[0] == root]
            self._boards[root] = GateBoard(layers, list(self._adapters))
            self._boards[root].write(change(board.strengths))


def tile(strengths: Tensor, times: int = 2) -> Tensor:
    """Strengths (b, adapters) for a batch repeated as a whole: ``cat([s, s])``, as classifier-free guidance does.

    Guidance stacks all unconditional rows before all conditional ones, so rows are tiled, never interleaved.
    """
    return strengths.repeat(times, 1)
