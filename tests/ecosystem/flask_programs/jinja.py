"""Jinja: templates that iterate over a page and its page numbers."""

import os

from flask import Flask, render_template_string, request

from dualchemy.flask import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)


class User(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(30))


TEMPLATE = """
{%- for user in page %}{{ loop.index }}/{{ page.items | length }} {{ user.name }}
{% else %}nobody
{% endfor -%}
{% for number in page.iter_pages(left_edge=1, right_edge=1, left_current=0,
                                 right_current=0) -%}
{% if number %}[{{ number }}{{ "*" if number == page.page }}]{% else %}...{% endif %}
{%- endfor %}
{%- if page.has_next %} next={{ page.next_num }}{% endif %}
{{ page.first }}-{{ page.last }} of {{ page.total }}
{{ (page | list)[0].name if page.items }}
"""


@app.get("/")
def index():
    users = db.select(User).order_by(User.id)
    if "name" in request.args:
        users = users.where(User.name == request.args["name"])
    return render_template_string(TEMPLATE, page=db.paginate(users, per_page=2))


with app.app_context():
    db.create_all()
    db.session.add_all(User(name=f"User {number}") for number in range(9))
    db.session.commit()

client = app.test_client()
assert client.get("/?page=3").text.split("\n")[:5] == [
    "1/2 User 4",
    "2/2 User 5",
    "[1]...[3*]...[5] next=4",
    "5-6 of 9",
    "User 4",
]
assert client.get("/?name=none").text.startswith("nobody\n")
