"""For all tests."""

from src.plumbing import process

process.share_cores()  # before a test imports torch
