"""Flask-Session: sessions of users in the database, kept, changed, cleared."""

import os
import warnings

from flask import Flask, session
from flask_session import Session

from dualchemy.flask import SQLAlchemy

# Of Flask-Session, which calls datetime.utcnow().
warnings.filterwarnings("ignore", r"datetime\.datetime\.utcnow", DeprecationWarning)

for binds, key in (({}, None), ({"other": os.environ["OTHER_DATABASE_URL"]}, "other")):
    app = Flask(__name__)
    app.config.update(
        SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"],
        SQLALCHEMY_BINDS=binds,
        SESSION_TYPE="sqlalchemy",
        SESSION_SQLALCHEMY_BIND_KEY=key,
        SESSION_PERMANENT=True,
    )
    db = SQLAlchemy(app)
    app.config["SESSION_SQLALCHEMY"] = db
    if key:
        # Of Flask-Session, which calls get_engine().
        warnings.filterwarnings("ignore", "'get_engine'", DeprecationWarning)
    Session(app)
    model = app.session_interface.sql_session_model
    assert app.session_interface.client is db

    @app.get("/count")
    def count():
        session["count"] = session.get("count", 0) + 1
        return str(session["count"])

    @app.get("/clear")
    def clear():
        session.clear()
        return ""

    client, other = app.test_client(), app.test_client()
    assert [client.get("/count").text for _ in range(3)] == ["1", "2", "3"]
    assert other.get("/count").text == "1"
    with app.app_context():
        assert len(db.session.scalars(db.select(model)).all()) == 2
        assert model.__table__.metadata is db.metadatas[key]
    client.get("/clear")
    with app.app_context():
        assert len(db.session.scalars(db.select(model)).all()) == 1
    assert client.get("/count").text == "1"
