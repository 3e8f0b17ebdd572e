"""Own sources as people write them: each stands in src/yours/source.py of a test's project."""
