"""Which checkpoint at which strength, and why: scores made with the base itself, and the pick that follows."""
