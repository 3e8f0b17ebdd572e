"""What a failed `dvc` says: its reason stands neither first nor last."""


def reason(printed: str) -> str:
    """The reason in what a failed `dvc` printed: its last error, or else its last line."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["it says nothing"])[-1]
