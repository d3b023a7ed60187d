"""How Sphinx builds the documentation: ``make docs``."""

from __future__ import annotations

from importlib.metadata import version as installed

project = "django-natskv"
version = release = installed("django-natskv")
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"django-natskv {release}"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
# Pages link to files of the repository beside docs/, which are not pages.
suppress_warnings = ["myst.xref_missing"]
