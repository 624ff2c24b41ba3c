"""Mutated and hand-made style files through what reads them: inspecting, putting on a base, the library's cards."""

from __future__ import annotations

import json
import math
import random
import resource
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from benchmarks.reliability.rows import Row
from benchmarks.reliability.tiny import Bench, bench_at
from trainer.config import FileLayout
from trainer.errors import AdapterFileError, PatinaError

SECONDS = 2.0
ROOM_BYTES = 256 * 2**20
"""Address space that all files together may take beyond what was there before the first."""
LARGEST = 2**22

Header = dict[str, Any]
Mutation = Callable[[random.Random, Header, bytearray], bytes | None]


def mutated_adapters(row: Row, folder: Path, count: int, seed: int = 0) -> None:
    """No crash, nothing accepted that is not finite or lies elsewhere than the format says, little time and memory."""
    from trainer.adapters.bank import Bank
    from trainer.studio.database import Database
    from trainer.studio.folder import StudioFolder
    from trainer.studio.library import Library
    from trainer.studio.store import Store
    from trainer.styles.fit import attach
    from trainer.styles.inspect import inspect_file
    from trainer.styles.read import read_style

    bench, chance = bench_at(folder), random.Random(seed)
    originals = [parts(path) for path in honest_files(bench)]
    bank = Bank(bench.base.roots)
    home = StudioFolder(folder / "studio").prepare()
    database = Database(home.database)

    def ask(request: Any) -> dict[str, Any]:
        """What the worker does when a file is imported."""
        read_style(Path(request.path))
        return inspect_file(Path(request.path)).to_dict()

    # No run is asked for.
    library = Library(database, home, Store(database), cast(Any, None), ask)
    file = folder / "style.safetensors"
    before = _address_space()
    resource.setrlimit(resource.RLIMIT_AS, (before + ROOM_BYTES, resource.RLIM_INFINITY))
    try:
        for trial in range(count):
            header, body = originals[trial % len(originals)]
            content, how = mutated(chance, header, body)
            file.write_bytes(content)
            began, trouble = time.process_time(), ""
            try:
                way = ("inspect", "sample", "import")[trial % 3]
                style = read_style(file)
                if way == "inspect":
                    json.dumps(inspect_file(file).to_dict())
                elif way == "sample":
                    attach(bank, "style", style)
                else:
                    card = library.card(library.add(file))
                    library.metadata(card)
                    database.write("DELETE FROM styles")
                    shutil.rmtree(home.styles / card.id)
                row.add("accepted")
                trouble = misplaced(style.layers, content)
            except AdapterFileError as error:
                row.add("refused")
                if list(home.styles.iterdir()):
                    trouble = "a refused file was left in the library"
                if not 10 < len(str(error)) < 2000:
                    trouble = f"a strange sentence: {error}"
            except PatinaError as error:
                trouble = f"another kind of error: {type(error).__name__}: {error}"
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    raise
                trouble = f"{type(error).__name__}: {error}"
            took = time.process_time() - began
            row.most("slowest_processor_seconds", took)
            if took > SECONDS:
                trouble = trouble or f"took {took:.1f} s"
            for name in bank.names:
                bank.remove(name)
            if trouble:
                (folder.parent / f"failed-{trial}.safetensors").write_bytes(content)
            row.count(trouble and f"trial {trial} ({how}): {trouble}")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    row.figures["address_space_growth_mib"] = round((_address_space() - before) / 2**20, 1)


def honest_files(bench: Bench) -> list[Path]:
    """Small files of every layout that are good as they are."""
    import torch
    from safetensors.torch import save_file

    from trainer.adapters.bank import Bank
    from trainer.styles.write import write_style

    made = []
    layouts: tuple[FileLayout, ...] = ("kohya", "diffusers")
    for name, settings in {
        "kohya": {"targets": "cross", "method": "lora"},
        "dora": {"targets": "qv", "method": "dora"},
        "wide": {"targets": "all-linear", "method": "lora"},
    }.items():
        bank = Bank(bench.base.roots)
        bank.add("style", settings["targets"], rank=2, alpha=2.0, method=settings["method"], seed=1)
        layers = bank.weights_of("style")
        bank.detach()
        some = dict(list(layers.items())[:6])
        for layout in layouts:
            path = bench.path / f"{name}-{layout}.safetensors"
            said = {"ss_network_dim": "2", "modelspec.title": "Ball", "ss_base_model_version": "sd_v1"}
            write_style(path, some, layout=layout, metadata=said, dtype=torch.float16)
            made.append(path)
    stem = "lora_unet_down_blocks_0_attentions_0_proj_in"
    odd = {
        f"{stem}.lora_down.weight": torch.randn(2, 32, 1, 1),
        f"{stem}.lora_up.weight": torch.randn(32, 2, 1, 1),
        f"{stem}.alpha": torch.tensor(2.0),
    }
    path = bench.path / "convolution.safetensors"
    save_file(odd, path, {"ss_network_module": "networks.lora"})
    return [*made, path]


def parts(path: Path) -> tuple[Header, bytes]:
    """A file's header and what lies behind it."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def assembled(header: Header | bytes | str, body: bytes, length: int | None = None) -> bytes:
    """A file of a header and a body; ``length`` is what it says of the header's."""
    if isinstance(header, dict):
        header = json.dumps(header)
    raw = header.encode("utf-8", "surrogatepass") if isinstance(header, str) else header
    return struct.pack("<Q", (len(raw) if length is None else length) % 2**64) + raw + body


def mutated(chance: random.Random, header: Header, body: bytes) -> tuple[bytes, str]:
    """A file that somebody damaged or made up, and how."""
    how = chance.choice(list(MUTATIONS))
    copied, data = json.loads(json.dumps(header)), bytearray(body)
    result = MUTATIONS[how](chance, copied, data)
    return (assembled(copied, bytes(data)) if result is None else result)[:LARGEST], how


def misplaced(layers: Any, content: bytes) -> str:
    """A sentence when a layer holds what does not lie where the header says, as read here by plain arithmetic."""
    import torch

    kinds = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    kinds |= {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
    (length,) = struct.unpack("<Q", content[:8])
    there = set()
    for name, entry in json.loads(content[8 : 8 + length]).items():
        if name == "__metadata__" or entry["dtype"] not in kinds:
            continue
        start, stop = (8 + length + offset for offset in entry["data_offsets"])
        if stop > start:
            there.add(_mark(torch.frombuffer(bytearray(content[start:stop]), dtype=kinds[entry["dtype"]])))
    for where, layer in layers.items():
        for tensor in (layer.down, layer.up, *layer.extra.values()):
            if not bool(torch.isfinite(tensor.float()).all()):
                return f"{where} is not finite"
            if _mark(tensor) not in there:
                return f"{where} is not what lies in the file"
        if not math.isfinite(layer.alpha) or layer.alpha == 0:
            return f"{where} has alpha {layer.alpha}"
    return ""


def _mark(tensor: Any) -> tuple[int, bytes]:
    import torch

    flat = tensor.detach().float().contiguous().flatten()
    return flat.numel(), flat.view(torch.uint8).numpy().tobytes()


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


# ---- mutations: each changes the header or the body in place, or gives a whole file


def _names(header: Header) -> list[str]:
    return [name for name in header if name != "__metadata__"]


def _bits(chance: random.Random, header: Header, body: bytearray) -> bytes:
    whole = bytearray(assembled(header, bytes(body)))
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        place = chance.randrange(len(whole)) if chance.random() < 0.5 else chance.randrange(min(len(whole), 2000))
        whole[place] ^= 1 << chance.randrange(8)
    return bytes(whole)


def _bytes(chance: random.Random, header: Header, body: bytearray) -> bytes:
    whole = bytearray(assembled(header, bytes(body)))
    start = chance.randrange(len(whole))
    stop = min(len(whole), start + chance.choice((1, 4, 16, 200)))
    whole[start:stop] = chance.randbytes(chance.choice((0, stop - start, 3)))
    return bytes(whole)


def _cut(chance: random.Random, header: Header, body: bytearray) -> bytes:
    whole = assembled(header, bytes(body))
    return whole[: chance.randrange(len(whole))]


def _longer(chance: random.Random, header: Header, body: bytearray) -> None:
    body += chance.randbytes(chance.choice((1, 8, 4096)))


def _length(chance: random.Random, header: Header, body: bytearray) -> bytes:
    says = chance.choice((0, 1, 7, 2**31, 2**63 - 1, 2**64 - 1, 100_000_001, chance.randrange(10_000)))
    return assembled(header, bytes(body), says)


_VALUES: tuple[Any, ...] = (
    *(0, -1, 1, 2, 3, 2**31, 2**53, 2**63, 2**64, 10**400, 1e308, 0.5, True, None, "", "4", "²", [], {}, [[1]]),
    *(float("nan"), float("inf"), "\ud800", "F" * 3000, [2, 16], [16, 2], [0, 0], [-1, -1], {"a": 1}),
)


def _entry(chance: random.Random, header: Header, body: bytearray) -> None:
    entry = header[chance.choice(_names(header))]
    entry[chance.choice(("dtype", "shape", "data_offsets", "more"))] = chance.choice(_VALUES)


def _number(chance: random.Random, header: Header, body: bytearray) -> None:
    entry = header[chance.choice(_names(header))]
    numbers = entry[chance.choice(("shape", "data_offsets"))]
    if not numbers:
        numbers.append(chance.choice(_VALUES))
        return
    place = chance.randrange(len(numbers))
    numbers[place] = chance.choice((*_VALUES, numbers[place] + 1, numbers[place] - 1, numbers[place] * 2))


def _dtype(chance: random.Random, header: Header, body: bytearray) -> None:
    kinds = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "I64", "I8", "U8", "BOOL", "C64", "F4", "Q", "f32", "")
    for name in chance.sample(_names(header), chance.choice((1, len(_names(header))))):
        header[name]["dtype"] = chance.choice(kinds)


def _overlapping(chance: random.Random, header: Header, body: bytearray) -> None:
    """Many tensors in the same place: a small file that claims to be a large one."""
    first = header[_names(header)[0]]
    for index in range(chance.choice((2, 100, 20_000))):
        header[f"lora_unet_mid_block_attentions_0_transformer_blocks_{index}_attn2_to_q.lora_down.weight"] = dict(first)


def _rank(chance: random.Random, header: Header, body: bytearray) -> None:
    name = chance.choice(_names(header))
    rank = chance.choice((0, 1, 33, 40_000, 2**40))
    size = min(rank * 2, 200_000)
    body += bytes(size)
    header[name] |= {"shape": [rank, 1], "data_offsets": [len(body) - size, len(body)], "dtype": "F16"}


def _rename(chance: random.Random, header: Header, body: bytearray) -> None:
    name = chance.choice(_names(header))
    stem, _, rest = name.rpartition(".")
    new = chance.choice(
        (
            *("", ".", "/", "..", name * 50, name.upper(), f"{name}.{name}", f"{stem}.alpha", f"{stem}.lora_up.weight"),
            *(
                f"{stem}.\ud800{rest}",
                f"{stem}.{rest}\0",
                "__metadata__",
                f"../../{name}",
                "lora_unet_.lora_down.weight",
            ),
            *("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", f"{stem}.dora_scale"),
            *(f"{stem}.lora_mid.weight", f"{stem}.hada_w1_a", "x" * 70_000),
        )
    )
    header[new] = header.pop(name)


def _drop(chance: random.Random, header: Header, body: bytearray) -> None:
    for name in chance.sample(_names(header), chance.randint(1, len(_names(header)))):
        del header[name]


def _swap(chance: random.Random, header: Header, body: bytearray) -> None:
    one, other = (header[chance.choice(_names(header))] for _ in range(2))
    key = chance.choice(("shape", "data_offsets", "dtype"))
    one[key], other[key] = other[key], one[key]


def _metadata(chance: random.Random, header: Header, body: bytearray) -> None:
    said = header.setdefault("__metadata__", {})
    names = (
        *("ss_network_dim", "ss_network_alpha", "lora_adapter_metadata", "modelspec.title", "ss_base_model_version"),
        *(
            "modelspec.architecture",
            "modelspec.trigger_phrase",
            "patina.config",
            "modelspec.thumbnail",
            "ss_tag_frequency",
        ),
        *("patina.recommended_strength", "ss_bucket_info", "format", "sshs_model_hash", "\ud800", ""),
    )
    values: tuple[Any, ...] = (
        *(
            "²",
            "٣",
            "1e999",
            "NaN",
            "Infinity",
            "-0",
            "9" * 5000,
            "\ud800",
            "\0",
            "<script>alert(1)</script>",
            "[" * 50_000,
        ),
        *("{}", "[]", "null", '{"unet.lora_alpha": NaN}', '{"unet.alpha_pattern": {".?.?.?.?.?.?.?.?.?.?.?.?x": 1}}'),
        *(
            '{"unet.r": 0, "unet.lora_alpha": 1e400}',
            '{"unet.rank_pattern": 5}',
            "data:image/png;base64,AAAA",
            "x" * 100_000,
        ),
        *(3, None, [], {}, True, 1e999),
    )
    for _ in range(chance.randint(1, 4)):
        said[chance.choice(names)] = chance.choice(values)
    if chance.random() < 0.05:
        header["__metadata__"] = chance.choice(_VALUES)


def _nonsense(chance: random.Random, header: Header, body: bytearray) -> bytes:
    text = chance.choice(
        (
            "",
            "{",
            "[]",
            "null",
            "[" * 100_000,
            '{"a":' * 30_000,
            "{}" * 4,
            '{"__metadata__": {}}',
            "\ufeff{}",
            "NaN",
            "7" * 9000,
        )
    )
    return chance.choice((assembled(text, bytes(body)), chance.randbytes(chance.randrange(3000)), text.encode()))


def _not_finite(chance: random.Random, header: Header, body: bytearray) -> None:
    entry = header[chance.choice(_names(header))]
    start, stop = entry["data_offsets"]
    if stop - start >= 2:
        place = start + 2 * chance.randrange((stop - start) // 2)
        body[place : place + 2] = chance.choice((b"\x00\x7c", b"\x00\xfc", b"\x01\x7e", b"\xff\xff"))


def _twice(chance: random.Random, header: Header, body: bytearray) -> bytes:
    text = json.dumps(header)
    name = json.dumps(chance.choice(_names(header)))
    return assembled(text[:-1] + f", {name}: {json.dumps(header[json.loads(name)])}}}", bytes(body))


def _nothing(chance: random.Random, header: Header, body: bytearray) -> None:
    """As it was: reading must still work in between."""


MUTATIONS: dict[str, Mutation] = {
    "bits": _bits,
    "bytes": _bytes,
    "cut": _cut,
    "longer": _longer,
    "length": _length,
    "entry": _entry,
    "number": _number,
    "dtype": _dtype,
    "overlapping": _overlapping,
    "rank": _rank,
    "rename": _rename,
    "drop": _drop,
    "swap": _swap,
    "metadata": _metadata,
    "nonsense": _nonsense,
    "not finite": _not_finite,
    "twice": _twice,
    "nothing": _nothing,
}
