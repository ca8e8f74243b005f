"""factory_boy: factories of models, with db.session."""

import os

import factory
from flask import Flask

from dualchemy.flask import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)


class Team(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(30), unique=True)


class User(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(30))
    team_id = db.Column(db.ForeignKey(Team.id))
    team = db.relationship(Team)


class TeamFactory(factory.alchemy.SQLAlchemyModelFactory):
    class Meta:
        model = Team
        sqlalchemy_session = db.session  # taken outside any app context
        sqlalchemy_get_or_create = ("name",)

    name = factory.Sequence(lambda n: f"Team {n}")


class UserFactory(factory.alchemy.SQLAlchemyModelFactory):
    class Meta:
        model = User
        sqlalchemy_session_factory = lambda: db.session
        sqlalchemy_session_persistence = "commit"

    name = factory.Sequence(lambda n: f"User {n}")
    team = factory.SubFactory(TeamFactory)


with app.app_context():
    db.create_all()
    users = UserFactory.create_batch(3)
    assert [user.name for user in users] == ["User 0", "User 1", "User 2"]
    assert UserFactory(team__name="Team 0").team is users[0].team
    assert UserFactory.build().id is None
    assert UserFactory.build() not in db.session
with app.app_context():
    assert db.session.scalar(db.select(db.func.count(User.id))) == 4
    assert db.session.scalar(db.select(db.func.count(Team.id))) == 3
