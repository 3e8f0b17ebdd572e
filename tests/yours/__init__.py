"""What must hold for whatever stands in src/yours: tests of your code that you need not write."""
