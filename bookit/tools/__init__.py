"""The demo town and the benchmark, which may use every app. No app uses them."""
