"""Flask-Smorest and apispec: a REST API with pages, errors and an OpenAPI document."""

import os

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Flask
from flask.views import MethodView
from flask_smorest import Api, Blueprint
from marshmallow_sqlalchemy import SQLAlchemyAutoSchema

from dualchemy.flask import SQLAlchemy

app = Flask(__name__)
app.config.update(
    API_TITLE="Pets",
    API_VERSION="v1",
    OPENAPI_VERSION="3.0.2",
    SQLALCHEMY_DATABASE_URI=os.environ["DATABASE_URL"],
)
db = SQLAlchemy(app)
api = Api(app)


class Pet(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(30), nullable=False)


class PetSchema(SQLAlchemyAutoSchema):
    class Meta:
        model = Pet
        dump_only = ("id",)


blueprint = Blueprint("pets", "pets", url_prefix="/pets")


@blueprint.route("/")
class Pets(MethodView):
    @blueprint.response(200, PetSchema(many=True))
    @blueprint.paginate()
    def get(self, pagination_parameters):
        page = db.paginate(
            db.select(Pet).order_by(Pet.id),
            page=pagination_parameters.page,
            per_page=pagination_parameters.page_size,
            error_out=False,
        )
        pagination_parameters.item_count = page.total
        return page

    @blueprint.arguments(PetSchema)
    @blueprint.response(201, PetSchema)
    def post(self, new):
        pet = Pet(**new)
        db.session.add(pet)
        db.session.commit()
        return pet


@blueprint.route("/<int:id>")
class PetById(MethodView):
    @blueprint.response(200, PetSchema)
    def get(self, id):
        return db.get_or_404(Pet, id)

    @blueprint.response(204)
    def delete(self, id):
        db.session.delete(db.get_or_404(Pet, id))
        db.session.commit()


api.register_blueprint(blueprint)
with app.app_context():
    db.create_all()

client = app.test_client()
for name in ("Rex", "Tom", "Kit"):
    assert client.post("/pets/", json={"name": name}).status_code == 201
assert client.post("/pets/", json={}).status_code == 422
page = client.get("/pets/?page=2&page_size=2")
assert [pet["name"] for pet in page.json] == ["Kit"]
assert '"total": 3' in page.headers["X-Pagination"]
assert client.get("/pets/1").json == {"id": 1, "name": "Rex"}
assert client.delete("/pets/1").status_code == 204
assert client.get("/pets/1").status_code == 404
schemas = client.get("/openapi.json").json if api.spec is None else api.spec.to_dict()
assert schemas["components"]["schemas"]["Pet"]["required"] == ["name"]

spec = APISpec("Pets", "v1", "3.0.2", plugins=[MarshmallowPlugin()])
spec.components.schema("Pet", schema=PetSchema)
properties = spec.to_dict()["components"]["schemas"]["Pet"]["properties"]
assert properties["id"] == {"type": "integer", "readOnly": True}
