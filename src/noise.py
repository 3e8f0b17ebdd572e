"""The noise of this project: what other seeds of the same configuration gave, from the experiments
themselves."""

from src.experiments import stored


def seeds_like(lock: str) -> dict[str, float]:
    """Validation accuracy by seed of all finished experiments and commits whose training and
    evaluation in dvc.lock are those of `lock` but for `seed`; the same inputs give the same."""
    stages = stored.stages_of(lock)
    if stages is None:
        return {}
    found = stored.of_configuration(stored.configuration(stages))
    return {str(result.seed): result.metrics["val"]["accuracy"] for result in found}
