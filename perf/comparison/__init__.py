"""The comparison: the same work through Millrace, nginx, HAProxy and Envoy, each on one core. `perf/compare` is its command; README.md says what it does."""
