"""Flask-AppBuilder: log in as admin, then create, list, edit and delete a model through
its views and its REST API.
"""

import os
import warnings

from flask import Flask
from flask_appbuilder import AppBuilder, Model, ModelRestApi, ModelView
from flask_appbuilder.models.sqla.interface import SQLAInterface

from dualchemy.flask import SQLAlchemy

# Of Flask-AppBuilder.
warnings.filterwarnings("ignore", r"datetime\.datetime\.utcnow", DeprecationWarning)

app = Flask(__name__)
app.config.update(
    SECRET_KEY="test-key-of-32-bytes-or-more-here",
    WTF_CSRF_ENABLED=False,
    FAB_ADD_SECURITY_VIEWS=True,
    RATELIMIT_ENABLED=False,
    SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"],
)
db = SQLAlchemy(app)


class Contact(Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(150), unique=True, nullable=False)

    __tablename__ = "contact"


class ContactView(ModelView):
    datamodel = SQLAInterface(Contact)
    list_columns = ["name"]


class ContactApi(ModelRestApi):
    resource_name = "contact"
    datamodel = SQLAInterface(Contact)


with app.app_context():
    appbuilder = AppBuilder(app, db.session)
    appbuilder.add_view(ContactView, "Contacts")
    appbuilder.add_api(ContactApi)
    Model.metadata.create_all(db.engine)
    appbuilder.sm.add_user(
        "ada", "Ada", "L", "a@example.com", appbuilder.sm.find_role("Admin"), "secret"
    )

client = app.test_client()
assert client.get("/contactview/list/").status_code == 302
response = client.post("/login/", data={"username": "ada", "password": "secret"})
assert response.status_code == 302
assert client.post("/contactview/add", data={"name": "Grace"}).status_code == 302
assert "Grace" in client.get("/contactview/list/").text
assert client.post("/contactview/edit/1", data={"name": "Edsger"}).status_code == 302
assert "Edsger" in client.get("/contactview/show/1").text
assert client.post("/contactview/delete/1").status_code == 302
assert "Edsger" not in client.get("/contactview/list/").text

token = client.post(
    "/api/v1/security/login",
    json={"username": "ada", "password": "secret", "provider": "db"},
).json["access_token"]
headers = {"Authorization": f"Bearer {token}"}
api = app.test_client()
response = api.post("/api/v1/contact/", json={"name": "Barbara"}, headers=headers)
assert response.status_code == 201, response.text
assert api.get("/api/v1/contact/", headers=headers).json["count"] == 1
