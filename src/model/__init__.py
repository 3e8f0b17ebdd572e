"""The net: built by name, saved, loaded, asked."""
