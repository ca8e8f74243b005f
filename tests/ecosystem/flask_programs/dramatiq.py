"""Dramatiq: actors with an app context, on the threads of a worker."""

import os

import dramatiq
from dramatiq.brokers.stub import StubBroker
from flask import Flask

from dualchemy.flask import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)


class AppContext(dramatiq.Middleware):
    contexts = {}

    def before_process_message(self, broker, message):
        self.contexts[message.message_id] = context = app.app_context()
        context.push()

    def after_process_message(self, broker, message, *, result=None, exception=None):
        self.contexts.pop(message.message_id).pop(exception)


broker = StubBroker()
broker.add_middleware(AppContext())
dramatiq.set_broker(broker)


class User(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String(30))


@dramatiq.actor
def add_user(name):
    db.session.add(User(name=name))
    db.session.commit()


with app.app_context():
    db.create_all()

worker = dramatiq.Worker(broker, worker_timeout=100, worker_threads=3)
worker.start()
for name in ("Ada", "Edsger", "Grace"):
    add_user.send(name)
broker.join(add_user.queue_name, timeout=30_000)
worker.join()
worker.stop()

with app.app_context():
    assert db.engine.pool.checkedout() == 0
    names = db.session.scalars(db.select(User.name).order_by(User.name)).all()
    assert names == ["Ada", "Edsger", "Grace"]
