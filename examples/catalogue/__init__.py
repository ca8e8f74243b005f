"""A catalogue of the Python standard library, where people tag entries and leave notes.

The same site twice, on the same database: ``quart_app`` and ``flask_app`` share the
models and ``db`` (``models``), the statements and forms (``queries``), the templates and
the seed. What is left in the two app modules is what differs between the frameworks: one
awaits, the other does not.

- ``models``: the tables, and ``db``; no framework in sight
- ``queries``: statements, forms and JSON, as plain functions
- ``seed``: fills an empty database by introspection of the running Python
- ``settings``: the configuration of both apps
- ``quart_app``, ``flask_app``: the views
- ``__main__``: seeds, then serves both
"""
