"""Modules that several of the benchmarks use."""
