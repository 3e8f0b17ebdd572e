"""Tests of src/preparation."""
