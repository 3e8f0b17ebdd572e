"""Tests of the battery, on set-ups written as anybody would write them."""
