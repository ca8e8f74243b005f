"""Celery: tasks with an app context, run by a worker of an in-memory broker."""

import os

from celery import Celery, Task, shared_task
from celery.contrib.testing.worker import start_worker
from flask import Flask

from dualchemy.flask import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)


class User(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(30))


class FlaskTask(Task):
    def __call__(self, *args, **kwargs):
        with app.app_context():
            return self.run(*args, **kwargs)


celery = Celery(app.name, task_cls=FlaskTask)
celery.config_from_object(
    {
        "broker_url": "memory://",
        "broker_transport_options": {"polling_interval": 0.02},
        "result_backend": "cache+memory://",
        "worker_hijack_root_logger": False,
    }
)
celery.set_default()


@shared_task
def add_user(name):
    user = User(name=name)
    db.session.add(user)
    db.session.commit()
    return user.id


@shared_task
def fail(name):
    db.session.add(User(name=name))
    db.session.flush()
    raise ValueError(name)


with app.app_context():
    db.create_all()

with start_worker(celery, pool="solo", perform_ping_check=False):
    assert add_user.delay("Ada").get(timeout=30) == 1
    assert fail.delay("Grace").get(timeout=30, propagate=False).args == ("Grace",)
    assert add_user.delay("Edsger").get(timeout=30) in (2, 3)

with app.app_context():
    assert db.engine.pool.checkedout() == 0
    names = db.session.scalars(db.select(User.name).order_by(User.id)).all()
    assert names == ["Ada", "Edsger"]
