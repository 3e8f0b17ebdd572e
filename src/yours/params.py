"""Your own keys of params.yaml, which stand there in the section `yours`."""

from src.plumbing.keys import Key, number

# Each key of the section with what it accepts, by the functions of src/plumbing/keys.py:
# `integer(low, high)`, `number(words, test)`, `choice(word, ...)`, `text(words, pattern)`. Your
# net, loss, augmentation and source read it as `params["yours.poly_epsilon"]`, and `python -m
# src.deps` then makes it a param of their stages. It works like every other key: `dvc exp run -S
# yours.poly_epsilon=2`, `mlflow run . -P yours.poly_epsilon=2`.
KEYS: dict[str, Key] = {
    "poly_epsilon": number(">= 0", lambda x: x >= 0),
}
