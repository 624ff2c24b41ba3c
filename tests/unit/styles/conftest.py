"""Tiny models of the real classes, see `tests/tiny_unet.py`."""

from tiny_unet import awaken, inputs, make_inputs, make_unet, run, sd_pipeline, sdxl_pipeline, unet

__all__ = ["awaken", "inputs", "make_inputs", "make_unet", "run", "sd_pipeline", "sdxl_pipeline", "unet"]
