"""Loading without the libraries' own bars and advice: their words about our calls mean nothing to a user."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from types import ModuleType


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Errors only, and no progress bars, from diffusers and transformers; what was set before is put back."""
    import_bitsandbytes()
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    with ExitStack() as stack:
        for library in (of_diffusers, of_transformers):
            stack.enter_context(_quiet(library))
        yield


@contextmanager
def _quiet(library: ModuleType) -> Iterator[None]:
    verbosity, bars = library.get_verbosity(), library.is_progress_bar_enabled()
    library.set_verbosity_error()
    library.disable_progress_bar()
    try:
        yield
    finally:
        library.set_verbosity(verbosity)
        if bars:
            library.enable_progress_bar()


def import_bitsandbytes() -> None:
    """Where it is installed, import it before a library does: without its own words, and without the network.

    On some processors it looks for more kernels with the package ``kernels``, which fetches them from the hub, and
    complains when that is missing. They are for products that are not used here.
    """
    if "bitsandbytes" in sys.modules or find_spec("bitsandbytes") is None:
        return
    told = logging.getLogger("bitsandbytes")
    level, elsewhere = told.level, sys.modules.get("kernels")
    told.setLevel(logging.ERROR)
    sys.modules["kernels"] = None  # type: ignore[assignment]
    try:
        import bitsandbytes  # noqa: F401
    finally:
        told.setLevel(level)
        del sys.modules["kernels"]
        if elsewhere is not None:
            sys.modules["kernels"] = elsewhere
