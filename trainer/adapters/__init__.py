"""Adapters: low-rank updates on frozen models, their strengths, and their files."""
