"""How Sphinx builds these pages: `make docs`."""

from __future__ import annotations

import os
import sys
import tempfile

import requests
from sphinx.application import Sphinx

import mlp_accel

project = "mlp_accel"
project_copyright = "the authors of mlp_accel"
version = release = mlp_accel.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinxcontrib.programoutput",
]
exclude_patterns = ["_build"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
nitpicky = True
# What the docstrings call an array, a sequence or a NumPy type has no page here; a name of this project must have one.
nitpick_ignore_regex = [("py:.*", r"(?!mlp_accel\.).*")]

html_theme = "furo"
html_title = "mlp_accel"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_show_sphinx = False

myst_enable_extensions = ["attrs_inline", "colon_fence"]
myst_heading_anchors = 3

# The notebook is executed at each build, so that its outputs are those of this code; an error in it is an error of the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

default_role = "autolink"  # `Name` in a docstring is a link if there is such a name
autodoc_member_order = "groupwise"
autodoc_typehints = "none"  # the docstrings say more: shapes and units
napoleon_google_docstring = False
napoleon_use_rtype = False

os.environ["MLP_ACCEL_NUM_THREADS"] = "1"  # for the notebook: the steadiest where something else is running
os.environ.setdefault("IPYTHONDIR", tempfile.mkdtemp())  # a home that cannot be written to is no obstacle


def leave_out_other_sites(app: Sphinx) -> None:
    """Check the links between the pages alone where there is no network, and say so."""
    if app.builder.name != "linkcheck":
        return
    try:
        requests.head("https://www.python.org", timeout=10)
    except requests.RequestException as error:
        print(f"links to other sites are NOT checked: {error}", file=sys.stderr)
        app.config.linkcheck_ignore = [r"https?://"]


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("builder-inited", leave_out_other_sites)
