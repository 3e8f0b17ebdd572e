"""Tests of src/tracking, in a project of two tiny stages and a real store."""
