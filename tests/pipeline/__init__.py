"""The real pipeline, through `dvc`, in repositories of its own: the slow tests."""
