"""The queue for a seat of a full slot."""
