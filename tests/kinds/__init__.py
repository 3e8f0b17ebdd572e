"""A second kind of sample, and a test that takes it through the pipeline."""
