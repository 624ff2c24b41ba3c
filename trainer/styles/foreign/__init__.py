"""What a layer in a style file can be made with, a module each: what it must look like, and what it does."""

from __future__ import annotations

from collections.abc import Iterable

from trainer.styles.foreign.bottleneck import BottleneckForm
from trainer.styles.foreign.difference import Difference
from trainer.styles.foreign.form import Form
from trainer.styles.foreign.glora import GloraForm
from trainer.styles.foreign.loha import LohaForm
from trainer.styles.foreign.lokr import LokrForm
from trainer.styles.foreign.lora import LoraForm
from trainer.styles.foreign.prefix import PrefixForm

FORMS: tuple[Form, ...] = (
    LohaForm(),
    LokrForm(),
    GloraForm(),
    Difference(),
    BottleneckForm(),
    PrefixForm(),
    LoraForm(),
)


def form_of(parts: Iterable[str]) -> Form | None:
    """The form that a layer's parts show; None where they show none, as a bare alpha."""
    own = set(parts)
    return next((form for form in FORMS if own & form.marks), None)
