"""The demo town and the benchmark. They may import every app; no app imports them."""
