"""A plain LoRA out of what holds a style otherwise: a tuned base beside its original, or a style that needs its base.

Each layer's update is known as a whole matrix; its strongest directions are kept (Eckart and Young 1936).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from torch import Tensor

from trainer.adapters.methods import method_of
from trainer.adapters.targets import TARGETS, matching
from trainer.adapters.weights import LayerWeights
from trainer.errors import BaseError, ConfigError
from trainer.safetensors_file import hash_of_tensors
from trainer.styles.file import StyleFile
from trainer.styles.metadata import Provenance, build, check_base
from trainer.version import __version__
from trainer.workbench.base_files import BaseFiles
from trainer.workbench.lowrank import spectrum_of_matrix
from trainer.workbench.made import Made, described, made, name_of, source
from trainer.workbench.resize import check, told_ranks
from trainer.workbench.updates import biases_left_out, placed, update_of

UNCHANGED = 1e-7
"""Norm of a difference, relative to the weight's, below which it is nothing but rounding in fp32."""
Told = Callable[[int, int], None]
"""Told how many layers of how many are done."""


def extract(
    tuned: BaseFiles,
    original: BaseFiles,
    *,
    rank: int | None = None,
    energy: float | None = None,
    targets: str = "",
    name: str = "",
    told: Told = lambda done, total: None,
) -> Made:
    """The difference of two bases as a style for the original.

    Args:
        rank, energy: as of `trainer.workbench.resize.resize`.
        targets: of the denoiser's layers, as in `trainer.adapters.targets`; empty takes every linear layer and
            convolution, those of the text encoders included.
        name: of the style; empty is the tuned base's.

    Raises:
        ConfigError: no rank or one that cannot be, or targets that match nothing.
        BaseError: the two are of different families or differ in their layers, or nothing differs.
    """
    check(rank, energy)
    if tuned.family is not original.family:
        raise BaseError(
            f"{tuned.source} is of {tuned.family.title} and {original.source} of {original.family.title}; a difference "
            "is only taken of two bases of one family."
        )
    before, after = original.layers(), tuned.layers()
    paths = _chosen(before, targets, original)
    folded = _Folded(rank, energy)
    for done, path in enumerate(paths, 1):
        if path not in after or after[path].shape != before[path].shape:
            raise BaseError(f"{tuned.source} has no layer {path} of the shape that {original.source} has it in.")
        weight = before[path].read().float()
        folded.take(path, after[path].read().float() - weight, float(weight.norm()))
        told(done, len(paths))
    if not folded.layers:
        raise BaseError(
            f"{tuned.source} and {original.source} do not differ in these layers; there is no style in them."
        )
    notes = [folded.sentence(len(paths))]
    if not targets and (others := _differing(tuned, original)):
        notes.append(f"{others} biases, norms and embeddings differ too, which no LoRA holds; they are left out.")
    detected = original.detected
    prediction = detected.prediction or "epsilon"
    facts = Provenance(
        name=name or tuned.name,
        family=original.family.key,
        version_name=original.family.version_names[prediction],
        architecture=original.family.architectures[prediction],
        version=__version__,
        base_name=original.name,
        v2=original.family.v2,
        original_names=original.family.original_names,
        prediction=prediction,
        zero_terminal_snr=detected.zero_snr,
    )
    of: list[dict[str, object]] = [{**_base_entry(tuned)}, {**_base_entry(original), "minus": True}]
    metadata = build(facts) | made("extract", of, folded.layers, _settings(rank, energy, targets))
    return Made(folded.layers, metadata, tuple(notes), folded.lost)


def flatten(
    file: StyleFile,
    base: BaseFiles,
    *,
    rank: int | None = None,
    energy: float | None = None,
    name: str = "",
    told: Told = lambda done, total: None,
) -> Made:
    """A style of any method as plain LoRA for one base, such as DoRA, whose change depends on the base's weights.

    Args:
        rank, energy: as of `trainer.workbench.resize.resize`.
        name: of the result; empty is the style's own.

    Raises:
        ConfigError: no rank or one that cannot be.
        AdapterFileError: the style does not fit the base.
    """
    check(rank, energy)
    check_base(file.metadata, base_sha256=file.metadata.get("patina.base_sha256", ""), family=base.family.key)
    places = list(placed(file, base))
    folded = _Folded(rank, energy)
    for done, (path, layer, _, place) in enumerate(places, 1):
        update = update_of(layer, place.read())
        out, inputs = method_of(layer).sides(layer)
        folded.take(path, update.reshape(out, *inputs))
        told(done, len(places))
    metadata = described(
        "extract",
        [file],
        folded.layers,
        of=[
            source(file, method=", ".join(sorted({layer.method for layer in file.layers.values()}))),
            _base_entry(base),
        ],
        name=name or name_of(file),
        settings=_settings(rank, energy, ""),
    )
    notes = (*file.notes, *biases_left_out(file), folded.sentence(len(places)))
    return Made(folded.layers, metadata, notes, folded.lost)


@dataclass
class _Folded:
    """Updates that come one after the other, each reduced to its strongest directions."""

    rank: int | None
    energy: float | None
    layers: dict[str, LayerWeights] = field(default_factory=dict)
    left: float = 0.0
    total: float = 0.0

    def take(self, path: str, update: Tensor, size: float = 0.0) -> None:
        """Keep the strongest of an update, in the shape of its weight; ``size`` is the norm of that weight."""
        if not float(update.norm()) > UNCHANGED * size:
            return
        directions = spectrum_of_matrix(update.flatten(1))
        most = len(directions.sizes)
        kept = min(self.rank or most, most if self.energy is None else directions.rank_for(self.energy))
        self.layers[path] = directions.layer(kept, update.shape[1:])
        self.left += directions.lost_below(kept)
        self.total += directions.energy

    @property
    def lost(self) -> float:
        return self.left / self.total if self.total else 0.0

    def sentence(self, looked_at: int) -> str:
        rank = told_ranks(self.layers)
        return f"{len(self.layers)} of {looked_at} layers, rank {rank}; {self.lost:.2%} of the energy is left out."


def _chosen(layers: Iterable[str], targets: str, base: BaseFiles) -> list[str]:
    every = sorted(layers)
    if not targets:
        return every
    root = f"{base.family.root}."
    inner = {path.removeprefix(root): path for path in every if path.startswith(root)}
    found = matching(TARGETS.get(targets, targets), list(inner), setting="--targets")
    if not found:
        examples = ", ".join(list(inner)[:: max(1, len(inner) // 3)][:3])
        raise ConfigError(f"--targets {targets!r} matches no layer; there are paths such as {examples}.")
    return [inner[path] for path in found]


def _differing(tuned: BaseFiles, original: BaseFiles) -> int:
    """How many parameters that are no layers' weights differ."""
    layers = {f"{path}.weight" for path in original.layers()}
    count = 0
    for name in (original.parameters.keys() & tuned.parameters.keys()) - layers:
        before, after = original.parameters[name], tuned.parameters[name]
        if before.shape == after.shape and not bool((before.read().float() == after.read().float()).all()):
            count += 1
    return count


def _base_entry(base: BaseFiles) -> dict[str, str]:
    """A base as an entry of ``of``: its name, and the hash of its denoiser's first file."""
    return {"base": base.name, "weights": hash_of_tensors(next(iter(base.headers.values())))}


def _settings(rank: int | None, energy: float | None, targets: str) -> dict[str, object]:
    given = {"rank": rank, "energy": energy, "targets": targets or None}
    return {key: value for key, value in given.items() if value is not None}
