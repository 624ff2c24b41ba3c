"""Captions written by a model: BLIP or Florence-2 looks at an image, and what it says of the style is left out."""
