"""Tests of src/images."""
