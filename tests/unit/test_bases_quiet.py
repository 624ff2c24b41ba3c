"""Libraries are loaded without the words that they have for their own users."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainer.bases.quiet import import_bitsandbytes

OPS = """
import logging

logger = logging.getLogger(__name__)
try:
    from kernels import get_kernel
except ImportError as error:
    logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", error)
else:
    raise AssertionError("it would be fetched from the hub")
"""


@pytest.fixture
def bitsandbytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that does what bitsandbytes does on a processor with bf16, and one that would fetch kernels."""
    package = tmp_path / "bitsandbytes"
    (package / "backends").mkdir(parents=True)
    (package / "__init__.py").write_text("from .backends import ops\n")
    (package / "backends" / "__init__.py").touch()
    (package / "backends" / "ops.py").write_text(OPS)
    (tmp_path / "kernels.py").write_text("def get_kernel(name): raise AssertionError(name)\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("bitsandbytes", "kernels")]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("bitsandbytes")
def test_bitsandbytes_is_loaded_without_its_words_and_without_the_network(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    try:
        import_bitsandbytes()
        assert "bitsandbytes.backends.ops" in sys.modules
        assert "kernels" not in sys.modules
        assert not caplog.records
        assert capfd.readouterr() == ("", "")
    finally:
        for name in [name for name in sys.modules if name.partition(".")[0] == "bitsandbytes"]:
            del sys.modules[name]
