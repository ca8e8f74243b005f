"""SQLAlchemy-Continuum: versions of a model, who made them, going back."""

import os

from flask import Flask
from sqlalchemy.orm import configure_mappers
from sqlalchemy_continuum import make_versioned, transaction_class, version_class
from sqlalchemy_continuum.plugins import PropertyModTrackerPlugin

from dualchemy.flask import SQLAlchemy

make_versioned(user_cls=None, plugins=[PropertyModTrackerPlugin()])

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)


class Article(db.Model):
    __versioned__ = {}
    id = db.Column(db.Integer, primary_key=True, autoincrement=True)
    name = db.Column(db.String(255))


configure_mappers()

with app.app_context():
    db.create_all()
    article = Article(name="Some article")
    db.session.add(article)
    db.session.commit()
    assert article.versions[0].name == "Some article"
    article.name = "Updated name"
    db.session.commit()
    assert article.versions[1].changeset == {"name": ["Some article", "Updated name"]}

with app.app_context():
    article = db.session.get(Article, 1)
    article.versions[0].revert()
    db.session.commit()
    assert article.name == "Some article"
    db.session.delete(article)
    db.session.commit()
    Version = version_class(Article)
    kinds = db.session.scalars(
        db.select(Version.operation_type).order_by(Version.transaction_id)
    ).all()
    assert kinds == [0, 1, 1, 2]
    Transaction = transaction_class(Article)
    assert db.session.scalar(db.select(db.func.count(Transaction.id))) == 4
