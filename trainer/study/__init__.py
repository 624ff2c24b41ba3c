"""Studies: several ways to train one style, with several seeds, compared by what they make of held-out pictures.

`arms` says what is compared, `run` trains it in shared passes, `result` is the file that grows, `spread` tells findings
from noise, `plot` draws them. `race` lets settings drop out on the way and trains the best one on.
"""
