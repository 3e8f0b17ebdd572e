"""Yours: what you write for your own project. `make upgrade` leaves these files alone."""
