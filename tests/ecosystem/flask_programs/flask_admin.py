"""Flask-Admin: create, list, search, edit and delete models through its views."""

import os
import warnings

from flask import Flask
from flask_admin import Admin
from flask_admin.contrib.sqla import ModelView
from flask_babel import Babel

from dualchemy.flask import SQLAlchemy

# Of Flask-Admin, in WTForms 3.3.
warnings.filterwarnings("ignore", "Yielding raw tuples from iter_", DeprecationWarning)

app = Flask(__name__)
app.config.update(SECRET_KEY="test", SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"])
db = SQLAlchemy(app)
Babel(app)  # Flask-Admin translates where Flask-Babel is installed


class Team(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(50), unique=True, nullable=False)

    def __str__(self):
        return self.name


class Player(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(50), nullable=False)
    team_id = db.Column(db.ForeignKey(Team.id))
    team = db.relationship(Team, backref="players")


class PlayerView(ModelView):
    column_list = ["name", "team"]
    column_searchable_list = ["name"]
    column_filters = ["team.name"]


admin = Admin(app, name="league")
admin.add_view(ModelView(Team, db))
admin.add_view(PlayerView(Player, db))

with app.app_context():
    db.create_all()

client = app.test_client()

assert client.get("/admin/").status_code == 200
response = client.post("/admin/team/new/", data={"name": "Reds"})
assert response.status_code == 302, response.text
assert "Already exists" in client.post("/admin/team/new/", data={"name": "Reds"}).text
for name in ("Ada", "Grace", "Edsger"):
    response = client.post("/admin/player/new/", data={"name": name, "team": "1"})
    assert response.status_code == 302, response.text

listed = client.get("/admin/player/").text
assert all(word in listed for word in ("Ada", "Grace", "Edsger", "Reds"))
found = client.get("/admin/player/?search=Gra&flt0_0=Reds").text
assert "Grace" in found
assert "Ada" not in found

assert 'value="Ada"' in client.get("/admin/player/edit/?id=1").text
response = client.post(
    "/admin/player/edit/?id=1", data={"name": "Ada L.", "team": "__None"}
)
assert response.status_code == 302, response.text
with app.app_context():
    ada = db.session.get(Player, 1)
    assert (ada.name, ada.team) == ("Ada L.", None)

assert client.post("/admin/player/delete/", data={"id": "1"}).status_code == 302
if os.environ["DATABASE_URL"].startswith("sqlite"):
    # It sends keys as text, which PostgreSQL takes from psycopg2 only.
    data = {"action": "delete", "rowid": ["2", "3"]}
    assert client.post("/admin/player/action/", data=data).status_code == 302
else:
    for id in ("2", "3"):
        response = client.post("/admin/player/delete/", data={"id": id})
        assert response.status_code == 302
with app.app_context():
    assert db.session.scalars(db.select(Player)).all() == []
