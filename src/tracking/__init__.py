"""Logging to MLflow: a journal on disk first, the tracker second; nothing here changes an output.

No stage lists these files as deps, and only they import mlflow, inside the functions that use it.
Stages call `run.start` or `run.reopen` and get a `Log`; `lookup` finds runs for the tools.
"""
