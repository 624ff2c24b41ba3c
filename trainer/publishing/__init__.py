"""Publishing a style: what model sites and other tools want beside the file, and nothing that is private.

Nothing here needs torch, and nothing leaves the machine but by `trainer.publishing.push`.
"""
