"""Flask-Marshmallow with marshmallow-sqlalchemy: dump and load models with links."""

import os

from flask import Flask, request
from flask_marshmallow import Marshmallow

from dualchemy.flask import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)
ma = Marshmallow(app)


class Author(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(255), nullable=False)


class Book(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    title = db.Column(db.String(255), nullable=False)
    author_id = db.Column(db.ForeignKey(Author.id))
    author = db.relationship(Author, backref="books")


class AuthorSchema(ma.SQLAlchemyAutoSchema):
    class Meta:
        model = Author
        load_instance = True


class BookSchema(ma.SQLAlchemyAutoSchema):
    class Meta:
        model = Book
        include_fk = True
        load_instance = True

    author = ma.HyperlinkRelated("author")


@app.get("/authors/<int:id>")
def author(id):
    return AuthorSchema().jsonify(db.get_or_404(Author, id))


@app.post("/books")
def add_book():
    book = BookSchema().load(request.get_json())
    db.session.add(book)
    db.session.commit()
    return BookSchema().dump(book), 201


@app.get("/books")
def books():
    page = db.paginate(db.select(Book).order_by(Book.id))
    return {"items": BookSchema(many=True).dump(page), "total": page.total}


with app.app_context():
    db.create_all()
    db.session.add(Author(name="Chuck Paluhniuk"))
    db.session.commit()

client = app.test_client()
assert client.get("/authors/1").json == {"id": 1, "name": "Chuck Paluhniuk"}
created = client.post("/books", json={"title": "Fight Club", "author": "/authors/1"})
assert created.status_code == 201
assert created.json["author"] == "/authors/1"
assert client.get("/books").json == {
    "items": [{"id": 1, "title": "Fight Club", "author": "/authors/1", "author_id": 1}],
    "total": 1,
}
with app.app_context():
    # A schema finds the row that has the key, in db.session.
    book = BookSchema().load({"id": 1, "title": "Choke"})
    assert book in db.session
    assert book.author.name == "Chuck Paluhniuk"
    db.session.commit()
    db.session.delete(book)
    db.session.commit()
assert client.get("/books").json["total"] == 0
