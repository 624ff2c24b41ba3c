"""The programs that people open styles in: what each takes of a file, known before a training and proved after it."""

from trainer.styles.consumers.openings import Opening as Opening
from trainer.styles.consumers.openings import foreseen as foreseen
from trainer.styles.consumers.openings import losses as losses
from trainer.styles.consumers.openings import openings as openings
from trainer.styles.consumers.openings import opens_in as opens_in
