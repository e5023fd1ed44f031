"""Measurements side by side on one machine: `python -m benchmarks`, which `make bench` runs. README.md has the map."""
