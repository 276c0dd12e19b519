"""How Sphinx builds these pages; `make docs` makes every warning an error."""

import nghttp2py

project = "nghttp2py"
author = "the nghttp2py founders"
release = version = nghttp2py.__version__
extensions = ["sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"nghttp2py {release}"
html_static_path = ["_static"]
html_css_files = ["figures.css"]
exclude_patterns = ["build", "performance"]
autodoc_member_order = "bysource"
# A reference to a name of ours must lead somewhere; those to others' lead nowhere
# here, for that would take their inventories from the network.
nitpicky = True
nitpick_ignore_regex = [
    ("py:.*", r"(?!nghttp2py).*"),
    # Type variables, and types of private arguments.
    ("py:class", r".*\.(P|_\w+)"),
]
