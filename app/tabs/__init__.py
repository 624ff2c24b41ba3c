"""One module a tab, each with ``build(shell, tab)``; see `app.ui`."""
