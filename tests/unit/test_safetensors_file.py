"""The reader of safetensors files takes what the format allows, and refuses everything else with a sentence."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from trainer.errors import AdapterFileError, BaseError
from trainer.safetensors_file import (
    HASH_KEY,
    LEGACY_HASH_KEY,
    MAX_HEADER,
    MAX_NAME,
    MAX_TENSORS,
    copy_with_metadata,
    hash_of_tensors,
    read_header,
    read_tensors,
    write,
)


def spell(path: Path, header: Any, body: bytes = b"") -> Path:
    """A file with any header, as text or as data that becomes JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


def entry(shape: list[Any], start: Any, stop: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


BODY = bytes(16)
BAD: dict[str, tuple[Any, bytes, str]] = {
    "overlap": ({"a": entry([4], 0, 16), "b": entry([2], 8, 16)}, BODY, "b lies over another tensor"),
    "twice the same bytes": ({"a": entry([4], 0, 16), "b": entry([4], 0, 16)}, BODY, "b lies over another tensor"),
    "gap": ({"a": entry([1], 0, 4), "b": entry([1], 12, 16)}, BODY, "b does not follow the tensor before it"),
    "late start": ({"a": entry([3], 4, 16)}, BODY, "a does not follow"),
    "bytes behind the end": ({"a": entry([3], 0, 12)}, BODY, "4 bytes lie behind its last tensor"),
    "cut": ({"a": entry([8], 0, 32)}, BODY, "cut short"),
    "other size than its shape": ({"a": entry([5], 0, 16)}, BODY, "the size that its shape says"),
    "backwards": ({"a": entry([4], 16, 0)}, BODY, "is damaged"),
    "negative side": ({"a": entry([-4], 0, 16)}, BODY, "header cannot be read"),
    "side as a float": ({"a": entry([4.0], 0, 16)}, BODY, "header cannot be read"),
    "side as a truth value": ({"a": entry([True, 4], 0, 16)}, BODY, "header cannot be read"),
    "offset as a float": ({"a": entry([4], 0, 16.0)}, BODY, "header cannot be read"),
    "infinite side": (b'{"a":{"dtype":"F32","shape":[Infinity],"data_offsets":[0,16]}}', BODY, "header cannot be read"),
    "no type": ({"a": entry([4], 0, 16, "F33")}, BODY, "header cannot be read"),
    "type as a list": ({"a": entry([4], 0, 16) | {"dtype": []}}, BODY, "header cannot be read"),
    "too many dimensions": ({"a": entry([1] * 99 + [4], 0, 16)}, BODY, "header cannot be read"),
    "a name twice": (b'{"a":%(e)s,"a":%(e)s}' % {b"e": json.dumps(entry([4], 0, 16)).encode()}, BODY, "header cannot"),
    "a long name": ({"a" * (MAX_NAME + 1): entry([4], 0, 16)}, BODY, "header cannot be read"),
    "a name with a line break": ({"a\nb": entry([4], 0, 16)}, BODY, "header cannot be read"),
    "half a character in a name": ({"a\ud800": entry([4], 0, 16)}, BODY, "header cannot be read"),
    "deep": (b'{"a":' + b"[" * 100_000, b"", "header cannot be read"),
    "deep metadata": (b'{"__metadata__":' + b'{"a":' * 100_000, b"", "header cannot be read"),
    "metadata in a table": ({"__metadata__": {"a": {"b": "c"}}}, b"", "header cannot be read"),
    "metadata as a list": ({"__metadata__": ["a"]}, b"", "header cannot be read"),
    "a number of many digits": (b'{"a":{"shape":[' + b"9" * 9999 + b"]}}", b"", "header cannot be read"),
    "no UTF-8": (b'{"\xff":1}', b"", "header cannot be read"),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_a_file_that_the_format_does_not_allow_is_refused(tmp_path: Path, kind: str) -> None:
    header, body, sentence = BAD[kind]
    path = spell(tmp_path / "a.safetensors", header, body)
    with pytest.raises(AdapterFileError, match=sentence) as caught:
        read_header(path, AdapterFileError)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize("kind", [kind for kind in BAD if "name" not in kind and kind != "too many dimensions"])
def test_the_safetensors_package_does_not_allow_it_either(tmp_path: Path, kind: str) -> None:
    header, body, _ = BAD[kind]
    path = spell(tmp_path / "a.safetensors", header, body)
    with pytest.raises(SafetensorError):
        safe_open(path, framework="pt")


def test_whoever_asked_gets_an_error_of_their_own_kind(tmp_path: Path) -> None:
    with pytest.raises(BaseError, match="There is no file"):
        read_header(tmp_path / "a.safetensors", BaseError)


@pytest.mark.model
def test_more_tensors_than_any_model_has_are_refused(tmp_path: Path) -> None:
    table = {f"{i}": entry([0], 0, 0, "U8") for i in range(MAX_TENSORS + 1)}
    with pytest.raises(AdapterFileError, match=f"lists {MAX_TENSORS + 1} tensors; at most {MAX_TENSORS} are read"):
        read_header(spell(tmp_path / "a.safetensors", table), AdapterFileError)


def test_a_header_that_only_claims_to_be_huge_costs_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write((MAX_HEADER + 1).to_bytes(8, "little") + b"{")
        file.truncate(MAX_HEADER + 100)
    with pytest.raises(AdapterFileError, match="a header of 16 MiB; at most 16 MiB are read"):
        read_header(path, AdapterFileError)


def test_what_the_safetensors_package_writes_is_read(tmp_path: Path) -> None:
    tensors = {
        "half": torch.randn(3, 2).half(),
        "one": torch.tensor(2.5),
        "empty": torch.empty(0, 4),
        "whole": torch.arange(6).reshape(2, 3),
        "eight": torch.randn(5).to(torch.float8_e4m3fn),
        "truth": torch.tensor([True, False]),
    }
    save_file(tensors, tmp_path / "a.safetensors", metadata={"Größe": "\u2603"})
    header = read_header(tmp_path / "a.safetensors", AdapterFileError)
    assert header.metadata == {"Größe": "\u2603"}
    assert header.shapes["half"] == (3, 2)
    assert header.dtypes["eight"] == "F8_E4M3"
    assert header.parameters("half", "empty") == 6
    assert header.size == (tmp_path / "a.safetensors").stat().st_size
    for name, tensor in read_tensors(header, raises=AdapterFileError).items():
        assert tensor.dtype == tensors[name].dtype
        assert tensor.shape == tensors[name].shape
        assert tensor.view(torch.uint8).equal(tensors[name].view(torch.uint8)) if tensor.dim() else tensor == 2.5


def test_the_package_reads_what_is_written_and_equal_saves_are_equal_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.randn(3).half(), "a": torch.randn(2, 2), "c": torch.empty(0)}
    write(tmp_path / "a.safetensors", tensors, {"x": "1", "y": "2"})
    write(tmp_path / "b.safetensors", dict(reversed(tensors.items())), {"y": "2", "x": "1"})
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    header = read_header(tmp_path / "a.safetensors", AdapterFileError)
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        assert {name: file.get_tensor(name).tolist() for name in file.keys()} == {  # noqa: SIM118
            name: tensor.tolist() for name, tensor in tensors.items()
        }
        nothing = hashlib.sha256(b"").hexdigest()[:8]
        hashes = {HASH_KEY: hash_of_tensors(header), LEGACY_HASH_KEY: nothing}
        assert file.metadata() == {"x": "1", "y": "2"} | hashes


def test_a_copy_with_other_metadata_has_the_very_same_tensors(tmp_path: Path) -> None:
    save_file({"a": torch.randn(7), "b": torch.randn(3).half()}, tmp_path / "a.safetensors", {"x": "1", "y": "2"})
    header = read_header(tmp_path / "a.safetensors", AdapterFileError)
    copy_with_metadata(header, tmp_path / "b.safetensors", {"y": "other, and longer"})
    copy = read_header(tmp_path / "b.safetensors", AdapterFileError)
    assert copy.metadata == {"x": "1", "y": "other, and longer"}
    assert copy.entries == header.entries
    assert hash_of_tensors(copy) == hash_of_tensors(header)


def test_metadata_are_text_that_can_be_shown_and_stored(tmp_path: Path) -> None:
    said = {"half": "a\ud800b", "pair": "\ud83d\ude00", "terminal": "\x1b[31mred\x00", "lines": "a\n\tb"}
    header = read_header(spell(tmp_path / "a.safetensors", {"__metadata__": said}), AdapterFileError)
    assert header.metadata == {
        "half": "a\ufffdb",
        "pair": "\U0001f600",
        "terminal": "\ufffd[31mred\ufffd",
        "lines": "a\n\tb",
    }


def test_a_type_that_torch_does_not_have_is_named(tmp_path: Path) -> None:
    header = read_header(spell(tmp_path / "a.safetensors", {"a": entry([4], 0, 2, "F4")}, bytes(2)), AdapterFileError)
    with pytest.raises(AdapterFileError, match="keeps a as F4"):
        read_tensors(header, raises=AdapterFileError)


def test_headers_are_read_without_torch(tmp_path: Path) -> None:
    save_file({"a": torch.randn(7)}, tmp_path / "a.safetensors")
    code = (
        "import sys, pathlib; from trainer.safetensors_file import *; from trainer.errors import BaseError;"
        "copy_with_metadata(read_header(pathlib.Path(sys.argv[1]), BaseError), pathlib.Path(sys.argv[1]), {});"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "a.safetensors"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
