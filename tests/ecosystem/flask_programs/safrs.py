"""SAFRS: a JSON:API of two related models, with its OpenAPI description."""

import os

from flask import Flask
from safrs import SafrsApi, SAFRSBase

from dualchemy.flask import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)


class User(SAFRSBase, db.Model):
    """description: a user"""

    __tablename__ = "users"
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(30))
    books = db.relationship("Book", back_populates="user")


class Book(SAFRSBase, db.Model):
    """description: a book"""

    __tablename__ = "books"
    id = db.Column(db.Integer, primary_key=True)
    title = db.Column(db.String(30))
    user_id = db.Column(db.ForeignKey("users.id"))
    user = db.relationship(User, back_populates="books")


with app.app_context():
    db.create_all()
    api = SafrsApi(app, host="localhost", port=5000, prefix="/api")
    api.expose_object(User)
    api.expose_object(Book)

client = app.test_client()
JSON_API = {"Content-Type": "application/vnd.api+json"}


def send(method, path, data=None):
    return client.open(path, method=method, json=data, headers=JSON_API)


for name in ("Ada", "Grace", "Edsger"):
    created = send(
        "POST",
        "/api/users/",
        {"data": {"type": "User", "attributes": {"name": name}}},
    )
    assert created.status_code == 201, created.text
listed = send("GET", "/api/users/?page[limit]=2&sort=name").json
assert [each["attributes"]["name"] for each in listed["data"]] == ["Ada", "Edsger"]
assert listed["meta"]["total"] == 3
filtered = send("GET", "/api/users/?filter[name]=Grace").json
assert [each["id"] for each in filtered["data"]] == ["2"]

book = send(
    "POST",
    "/api/books/",
    {"data": {"type": "Book", "attributes": {"title": "Notes", "user_id": 1}}},
)
assert book.status_code == 201, book.text
included = send("GET", "/api/users/1/?include=books").json
assert included["included"][0]["attributes"]["title"] == "Notes"

changed = send(
    "PATCH",
    "/api/users/1/",
    {"data": {"type": "User", "id": "1", "attributes": {"name": "Ada L."}}},
)
assert changed.status_code in (200, 202), changed.text
assert send("GET", "/api/users/1/").json["data"]["attributes"]["name"] == "Ada L."
assert send("DELETE", "/api/users/2/").status_code == 204
assert send("GET", "/api/users/2/").status_code == 404
assert "/users/" in str(client.get("/api/swagger.json").json["paths"])
