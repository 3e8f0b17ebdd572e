"""These pages as a site: `make docs`. On GitHub they are read as they are."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["name"]
extensions = ["myst_parser"]
exclude_patterns = ["README.md"]  # index.md includes it
myst_heading_anchors = 3  # links to headings, as on GitHub
html_theme = "alabaster"
html_theme_options = {"page_width": "80rem", "sidebar_width": "16rem", "fixed_sidebar": True}
