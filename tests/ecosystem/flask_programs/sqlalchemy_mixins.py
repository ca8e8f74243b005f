"""sqlalchemy-mixins: active record, smart queries, serializing, timestamps, repr."""

import os
import warnings

from flask import Flask
from sqlalchemy_mixins import AllFeaturesMixin, TimestampsMixin

from dualchemy.flask import SQLAlchemy

# Of sqlalchemy-mixins.
warnings.filterwarnings("ignore", r"The Query\.get\(\) method is considered legacy")

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)


class BaseModel(AllFeaturesMixin, TimestampsMixin, db.Model):  # with its repr
    __abstract__ = True


class User(BaseModel):
    __repr_attrs__ = ["name"]
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(30))
    posts = db.relationship("Post", back_populates="user")


class Post(BaseModel):
    id = db.Column(db.Integer, primary_key=True)
    body = db.Column(db.String(30))
    user_id = db.Column(db.ForeignKey(User.id))
    user = db.relationship(User, back_populates="posts")


BaseModel.set_session(db.session)

with app.app_context():
    db.create_all()
    ada = User.create(name="Ada")
    Post.create(body="Notes", user=ada)
    User.create(name="Grace")
    db.session.commit()
with app.app_context():
    ada = User.find_or_fail(1)
    assert ada.update(name="Ada L.").to_dict()["name"] == "Ada L."
    assert "'Ada L.'" in repr(ada)
    found = Post.where(user___name__startswith="Ada").all()
    assert [post.body for post in found] == ["Notes"]
    loaded = User.with_({User.posts: "joined"}).filter_by(id=1).one()
    assert loaded.posts[0].body == "Notes"
    assert [user.name for user in User.sort("-name").all()] == ["Grace", "Ada L."]
    assert ada.created_at <= ada.updated_at
    User.destroy(2)
    db.session.commit()
with app.app_context():
    assert User.first().name == "Ada L."
    assert len(User.all()) == 1
