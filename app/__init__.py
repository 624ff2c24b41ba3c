"""The studio in the browser: pages and the process that serves them; models live in the worker."""
