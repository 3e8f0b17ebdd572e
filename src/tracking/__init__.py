"""Logging to MLflow: a journal on disk first, the tracker second; nothing here changes an output.

No stage lists these files as deps, and only they import mlflow, inside the functions that use it.
"""
