"""Flask-DebugToolbar: the SQLAlchemy panel shows the statements."""

import os

from flask import Flask
from flask_debugtoolbar import DebugToolbarExtension

from dualchemy.flask import SQLAlchemy

app = Flask(__name__)
app.config.update(
    SECRET_KEY="test",
    DEBUG_TB_ENABLED=True,
    DEBUG_TB_HOSTS=(),
    SQLALCHEMY_RECORD_QUERIES=True,
    SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"],
)
app.debug = True
db = SQLAlchemy(app)
toolbar = DebugToolbarExtension(app)


class User(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(20))


@app.get("/")
def index():
    names = db.session.scalars(db.select(User.name).where(User.name == "Ada")).all()
    return f"<html><body>{names}</body></html>"


with app.app_context():
    db.create_all()
    db.session.add(User(name="Ada"))
    db.session.commit()

client = app.test_client()
page = client.get("/").text
assert "1 query" in page
assert "program.py" in page
assert "(index)" in page
