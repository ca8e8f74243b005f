"""OpenTelemetry: a span for each statement, of one engine and of all that follow."""

import os

from flask import Flask
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dualchemy.flask import SQLAlchemy

exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))


def statements():
    found = [
        span.attributes["db.statement"]
        for span in exporter.get_finished_spans()
        if "db.statement" in span.attributes
    ]
    exporter.clear()
    return found


def query(**options):
    app = Flask(__name__)
    app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
    db = SQLAlchemy(app)
    with app.app_context():
        if options:
            options = {name: get(db) for name, get in options.items()}
            SQLAlchemyInstrumentor().instrument(tracer_provider=provider, **options)
        db.session.execute(db.text("SELECT 42"))


query(engine=lambda db: db.engine)
found = statements()
assert found == ["SELECT 42"], found
SQLAlchemyInstrumentor().uninstrument()

query(engines=lambda db: list(db.engines.values()))
found = statements()
assert found == ["SELECT 42"], found
SQLAlchemyInstrumentor().uninstrument()

# Without an engine: before any is made.
SQLAlchemyInstrumentor().instrument(tracer_provider=provider)
query()
assert "SELECT 42" in statements()
SQLAlchemyInstrumentor().uninstrument()
query()
assert statements() == []
