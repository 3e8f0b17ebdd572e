from tests.pipeline.conftest import clone

__all__ = ["clone"]
