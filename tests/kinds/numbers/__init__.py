"""A toy kind of sample: a row of numbers. tests/kinds/test_second_kind.py puts it beside
src/images."""
