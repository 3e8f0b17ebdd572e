"""Tests of src/plumbing."""
