"""The learning-rate range test: its ramp and its curve."""
