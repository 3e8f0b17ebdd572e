from ruamel.yaml import YAML

NUMBERS = {"lr", "weight_decay", "warmup"}


def did_you_mean(wrong, known):
    return ""


def own_params(values):
    return {key: value for key, value in values.items() if key.startswith("yours.")}


def load():
    """The values as YAML 1.2 has them, sections dotted."""
    with open("params.yaml") as file:
        root = YAML(typ="safe", pure=True).load(file)
    sections = {key: value for key, value in root.items() if isinstance(value, dict)}
    values = {key: value for key, value in root.items() if key not in sections}
    for name, section in sections.items():
        values.update({f"{name}.{key}": value for key, value in section.items()})
    return values
