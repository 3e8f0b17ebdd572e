"""Tests of src/experiments."""
