"""The Settings tab: what concerns the whole studio rather than one style."""
