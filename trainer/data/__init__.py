"""Images and captions: from a folder somebody dropped in to cached latents and text embeddings.

`doctor.examine` looks at the folder, `cache` encodes what it found, `sampler` says which images
make up which batch.
"""
