"""Yours: what you write for your own project. Updates of the template leave these files alone."""
