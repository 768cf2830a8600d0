"""Benchmarks: every claim about performance comes from here, measured side by side in one run (docs/performance.md)."""
