"""Benchmarks of batchgen; bench/README.md says what each of them measures."""
