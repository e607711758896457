"""Shared parts of the tests and benchmarks: real servers, real processes, conditions with deadlines."""
