"""The workbench: style files made from style files and bases, one tool a module.

Each tool is a function of what was read (`trainer.styles.file.StyleFile`) and gives a `trainer.workbench.made.Made`,
which says how it was made from what and can be written.
"""
