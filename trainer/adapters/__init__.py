"""Adapters: small updates on frozen models, and how strongly each counts."""
