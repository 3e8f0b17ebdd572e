"""PyYAML's loaders by libyaml, where PyYAML comes with it: ten times as fast."""

import yaml

SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# Keeps the text of each value, so nothing depends on a YAML version's guesses.
BaseLoader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
