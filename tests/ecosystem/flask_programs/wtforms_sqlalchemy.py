"""WTForms-SQLAlchemy: a form of a model, with a field that chooses among rows."""

import os
import warnings

from flask import Flask, request
from wtforms import Form
from wtforms_sqlalchemy.fields import QuerySelectField
from wtforms_sqlalchemy.orm import model_form

from dualchemy.flask import SQLAlchemy

# Of WTForms-SQLAlchemy, in WTForms 3.3.
warnings.filterwarnings("ignore", "Yielding raw tuples from iter_", DeprecationWarning)

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)


class Category(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(30), nullable=False)


class Product(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(30), nullable=False)
    category_id = db.Column(db.ForeignKey(Category.id))
    category = db.relationship(Category)


class ChoiceForm(Form):
    category = QuerySelectField(
        query_factory=lambda: Category.query.order_by(Category.name),
        get_label="name",
        allow_blank=True,
    )


ProductForm = model_form(
    Product, db_session=db.session, base_class=ChoiceForm, only=["name"]
)


@app.route("/products/<int:id>", methods=["GET", "POST"])
def product(id):
    product = db.get_or_404(Product, id)
    form = ProductForm(request.form, obj=product)
    if request.method == "POST" and form.validate():
        form.populate_obj(product)
        db.session.commit()
    return {"form": form.category(), "errors": form.errors}


with app.app_context():
    db.create_all()
    db.session.add_all(
        [Category(name="Toys"), Category(name="Books"), Product(name="x")]
    )
    db.session.commit()

client = app.test_client()
form = client.get("/products/1").json["form"]
assert form.index("Books") < form.index("Toys")
assert client.post("/products/1", data={"category": "1"}).json["errors"]
assert client.post("/products/1", data={"name": "Ball", "category": "9"}).json["errors"]
done = client.post("/products/1", data={"name": "Ball", "category": "1"}).json
assert done["errors"] == {}
with app.app_context():
    ball = db.session.get(Product, 1)
    assert (ball.name, ball.category.name) == ("Ball", "Toys")
