"""The waitlist of a full slot."""
