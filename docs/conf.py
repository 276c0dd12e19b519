"""How Sphinx builds these pages; `make docs` makes every warning an error."""

import nghttp2py

project = "nghttp2py"
author = "the nghttp2py founders"
release = version = nghttp2py.__version__
extensions = ["sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"nghttp2py {release}"
exclude_patterns = ["build"]
autodoc_member_order = "bysource"
nitpicky = False
