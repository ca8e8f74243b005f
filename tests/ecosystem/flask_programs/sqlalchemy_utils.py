"""SQLAlchemy-Utils: its types, Timestamp, and making and dropping a database."""

import os
import uuid

from flask import Flask
from sqlalchemy.engine import make_url
from sqlalchemy_utils import (
    ChoiceType,
    EmailType,
    Timestamp,
    URLType,
    UUIDType,
    create_database,
    database_exists,
    drop_database,
)

from dualchemy.flask import SQLAlchemy

url = make_url(os.environ["DATABASE_URL"])
url = url.set(database=f"{url.database}_made")
if url.drivername == "postgresql":
    # It makes engines of its own, with SQLAlchemy's default driver, psycopg2.
    url = url.set(drivername="postgresql+psycopg")
assert not database_exists(url)
create_database(url)
assert database_exists(url)

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = url
db = SQLAlchemy(app)


class User(db.Model, Timestamp):
    id = db.Column(UUIDType(binary=False), primary_key=True, default=uuid.uuid4)
    email = db.Column(EmailType)
    role = db.Column(ChoiceType([("admin", "Admin"), ("user", "Regular user")]))
    site = db.Column(URLType)


with app.app_context():
    db.create_all()
    db.session.add(User(email="Ada@Example.COM", role="admin"))
    db.session.commit()
with app.app_context():
    user = db.first_or_404(db.select(User))
    assert user.email == "ada@example.com"
    assert user.role.value == "Admin"
    assert isinstance(user.id, uuid.UUID)
    assert user.created is not None
    assert db.get_or_404(User, user.id) is user
    db.session.close()
    db.sync.dispose()
drop_database(url)
assert not database_exists(url)
