"""What is fast, against whom: every table in the README comes from here, measured side by side in one run."""
