"""How the bundled base is made: its data set, its training, its measurements and its packing.

Maintainers' tools. Nothing of the product imports them; `README.md` beside this file says how to run them.
"""
