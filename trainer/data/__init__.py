"""Images and captions: from a folder somebody dropped in to cached latents and text embeddings.

`decoder` opens images in a process of its own, `doctor` judges them, `cache` encodes what is trained on, `sampler` says
which images make up which batch.
"""
