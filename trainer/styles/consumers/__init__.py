"""The programs that people open styles in: what each takes of a file, known before a training and proved after it."""

from trainer.styles.consumers.opening import Opening as Opening
from trainer.styles.consumers.opening import foreseen as foreseen
from trainer.styles.consumers.opening import losses as losses
from trainer.styles.consumers.opening import openings as openings
from trainer.styles.consumers.opening import opens_in as opens_in
from trainer.styles.consumers.opening import told as told
