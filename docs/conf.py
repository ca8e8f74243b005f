"""How Sphinx builds these pages: ``tox -e docs``, with warnings as errors."""

from importlib.metadata import version as version_of

project = "Dualchemy"
copyright = "Dualchemy contributors"
release = version = version_of("dualchemy")

extensions = [
    "pallets_sphinx_themes",
    "sphinx.ext.autodoc",
    "sphinx.ext.doctest",  # for testsetup and testcleanup; tests/test_docs.py runs them
]
exclude_patterns = ["_build"]

autoclass_content = "both"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
default_role = "code"
toc_object_entries_show_parents = "hide"

# References to other projects. Their inventories would have to be fetched, so they are
# links only where the builder says that there is a network: sphinx-build -t online.
if tags.has("online"):  # noqa: F821 - Sphinx defines it
    extensions.append("sphinx.ext.intersphinx")
    intersphinx_mapping = {
        "flask": ("https://flask.palletsprojects.com/en/stable/", None),
        "python": ("https://docs.python.org/3/", None),
        "quart": ("https://quart.palletsprojects.com/en/latest/", None),
        "sqlalchemy": ("https://docs.sqlalchemy.org/en/20/", None),
        "werkzeug": ("https://werkzeug.palletsprojects.com/en/stable/", None),
    }
nitpicky = True
nitpick_ignore_regex = [
    (
        r"py:.*",
        r"(asyncio|blinker|collections|flask|quart|sqlalchemy|time|werkzeug)\..*",
    ),
    # Names of annotations that are not evaluated, and type variables.
    (
        r"py:class",
        r"AsyncAttrs\._AsyncAttrGetitem|Extension|Flask"
        r"|Quart|QueryCount|sa\.(MetaData|Row)|(schema\.)?BindKeys|MetaData",
    ),
    (r"py:(class|obj)", r"(dualchemy\.[\w.]+\.)?(O|P|T|TP|Ts)"),
]

html_theme = "flask"
html_sidebars = {"**": ["localtoc.html", "relations.html", "searchbox.html"]}
html_title = f"Dualchemy {version}"
html_show_sourcelink = False
html_static_path = ["_static"]
html_css_files = ["docs.css"]
