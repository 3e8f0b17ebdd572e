"""Tests of src/model."""
