"""Loading without the libraries' own bars and advice: their words about our calls mean nothing to a user."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Errors only, and no progress bars, from diffusers and transformers; what was set before is put back."""
    from diffusers.utils import logging as of_diffusers
    from transformers.utils import logging as of_transformers

    with ExitStack() as stack:
        for logging in (of_diffusers, of_transformers):
            stack.enter_context(_quiet(logging))
        yield


@contextmanager
def _quiet(logging: ModuleType) -> Iterator[None]:
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
