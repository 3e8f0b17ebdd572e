"""A result run again from its sources, and what differs."""
