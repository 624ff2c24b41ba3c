"""The Train tab; `app.train.page` builds it, the other modules draw its parts or do what its buttons say."""
