"""Sphinx's settings for the site: `make docs`. What is not plain settings is in site_parts.py."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "Goniometer"
author = "the Goniometer developers"
project_copyright = author
release = version = version_of("goniometer")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "site_parts"]
root_doc = "README"
exclude_patterns = ["figures"]

# The pages are plain Markdown that a code-hosting site renders as well. Only pages of the reference hold directives.
myst_enable_extensions = ["colon_fence"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 4
nitpicky = True  # references within the package must lead somewhere; those to other packages are plain text
nitpick_ignore_regex = [
    ("py:.*", r"(?!goniometer\.).*"),
    ("py:.*", r"goniometer\.(reporting|plotting|studies\.(plots|report))\..*"),
]
# A page may skip a level of headings; a bare name of several classes is left as text.
suppress_warnings = ["myst.header", "ref.python"]

# Formulas become MathML, which browsers draw without a script: the site works without a network.
html_math_renderer = "mathml"

# Docstrings are numpy-style; annotations stand in the signatures, as in the source.
napoleon_google_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "Goniometer"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
pygments_style = "friendly"
pygments_dark_style = "monokai"
