"""The net: built by name, saved, loaded, used for prediction."""
