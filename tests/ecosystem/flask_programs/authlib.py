"""Authlib: an OAuth 2.0 provider whose clients and tokens are models."""

import os
import time

from authlib.integrations.flask_oauth2 import (
    AuthorizationServer,
    ResourceProtector,
    current_token,
)
from authlib.integrations.sqla_oauth2 import (
    OAuth2ClientMixin,
    OAuth2TokenMixin,
    create_bearer_token_validator,
    create_query_client_func,
    create_revocation_endpoint,
    create_save_token_func,
)
from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant
from flask import Flask

from dualchemy.flask import SQLAlchemy

app = Flask(__name__)
app.config.update(SECRET_KEY="test", SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"])
db = SQLAlchemy(app)


class User(db.Model):
    id = db.Column(db.Integer, primary_key=True)


class Client(db.Model, OAuth2ClientMixin):
    id = db.Column(db.Integer, primary_key=True)
    user_id = db.Column(db.ForeignKey(User.id))
    user = db.relationship(User)


class Token(db.Model, OAuth2TokenMixin):
    id = db.Column(db.Integer, primary_key=True)
    user_id = db.Column(db.ForeignKey(User.id))
    user = db.relationship(User)


server = AuthorizationServer(
    app,
    query_client=create_query_client_func(db.session, Client),
    save_token=create_save_token_func(db.session, Token),
)
server.register_grant(ClientCredentialsGrant)
server.register_endpoint(create_revocation_endpoint(db.session, Token))
require_oauth = ResourceProtector()
require_oauth.register_token_validator(
    create_bearer_token_validator(db.session, Token)()
)


@app.post("/token")
def issue():
    return server.create_token_response()


@app.post("/revoke")
def revoke():
    return server.create_endpoint_response("revocation")


@app.get("/me")
@require_oauth("profile")
def me():
    return {"client": current_token.client_id}


with app.app_context():
    db.create_all()
    client = Client(
        client_id="shop",
        client_secret="secret",
        client_id_issued_at=int(time.time()),
        user=User(),
    )
    client.set_client_metadata(
        {
            "grant_types": ["client_credentials"],
            "scope": "profile",
            "token_endpoint_auth_method": "client_secret_basic",
        }
    )
    db.session.add(client)
    db.session.commit()

http = app.test_client()
https = {"base_url": "https://localhost"}
wrong = http.post(
    "/token", data={"grant_type": "client_credentials"}, auth=("shop", "?"), **https
)
assert wrong.status_code == 401
issued = http.post(
    "/token",
    data={"grant_type": "client_credentials", "scope": "profile"},
    auth=("shop", "secret"),
    **https,
)
assert issued.status_code == 200, issued.text
token = issued.json["access_token"]
headers = {"Authorization": f"Bearer {token}"}
assert http.get("/me", **https).status_code == 401
assert http.get("/me", headers=headers, **https).json == {"client": "shop"}
revoked = http.post("/revoke", data={"token": token}, auth=("shop", "secret"), **https)
assert revoked.status_code == 200, revoked.text
assert http.get("/me", headers=headers, **https).status_code == 401
