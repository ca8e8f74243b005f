"""Flask-Security: register, log in, visit what needs a role, log out."""

import os

from flask import Flask
from flask_security import (
    Security,
    SQLAlchemyUserDatastore,
    auth_required,
    current_user,
    roles_required,
)
from flask_security.models import fsqla_v3 as fsqla

from dualchemy.flask import SQLAlchemy

app = Flask(__name__)
app.config.update(
    SECRET_KEY="test",
    SECURITY_PASSWORD_SALT="salt",
    SECURITY_PASSWORD_HASH="plaintext",
    SECURITY_PASSWORD_SCHEMES=["plaintext"],
    SECURITY_HASHING_SCHEMES=["hex_md5"],
    SECURITY_DEPRECATED_HASHING_SCHEMES=[],
    SECURITY_REGISTERABLE=True,
    SECURITY_SEND_REGISTER_EMAIL=False,
    SECURITY_TRACKABLE=True,
    SECURITY_EMAIL_VALIDATOR_ARGS={"check_deliverability": False},
    WTF_CSRF_ENABLED=False,
    SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"],
)
db = SQLAlchemy(app)
fsqla.FsModels.set_db_info(db)


class Role(db.Model, fsqla.FsRoleMixin):
    pass


class User(db.Model, fsqla.FsUserMixin):
    pass


datastore = SQLAlchemyUserDatastore(db, User, Role)
app.security = Security(app, datastore)


@app.get("/me")
@auth_required()
def me():
    return current_user.email


@app.get("/editors")
@roles_required("editor")
def editors():
    return "editors"


with app.app_context():
    db.create_all()
    app.security.datastore.find_or_create_role("editor", permissions={"write"})
    db.session.commit()

EMAIL, PASSWORD = "ada@example.com", "correct horse battery"
ADA = {"email": EMAIL, "password": PASSWORD}

client = app.test_client()
assert client.get("/me").status_code == 302
response = client.post(
    "/register", json={**ADA, "password_confirm": PASSWORD}, follow_redirects=True
)
assert response.status_code == 200, response.text
assert client.get("/me").text == EMAIL
client.post("/logout")
assert client.get("/me").status_code == 302

wrong = client.post("/login", json={"email": EMAIL, "password": "a wrong password"})
assert wrong.status_code == 400
assert client.post("/login", json=ADA).status_code == 200
assert client.get("/me").text == EMAIL
assert client.get("/editors").status_code in (302, 403)
with app.app_context():
    user = datastore.find_user(email=EMAIL)
    datastore.add_role_to_user(user, "editor")
    datastore.commit()
    assert user.login_count == 2
assert client.get("/editors").text == "editors"
assert client.post("/logout").status_code == 302
assert client.get("/me").status_code == 302
with app.app_context():
    datastore.delete_user(datastore.find_user(email=EMAIL))
    datastore.commit()
    assert db.session.scalars(db.select(User)).all() == []
assert client.post("/login", json=ADA).status_code == 400
