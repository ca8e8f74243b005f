"""APScheduler: jobs with an app context, kept in the app's own database."""

import os
import threading

from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.background import BackgroundScheduler
from flask import Flask

from dualchemy.flask import SQLAlchemy

app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = os.environ["DATABASE_URL"]
db = SQLAlchemy(app)
done = threading.Event()


class Visit(db.Model):
    id = db.Column(db.Integer, primary_key=True)


def visit():
    with app.app_context():
        db.session.add(Visit())
        db.session.commit()
        if db.session.scalar(db.select(db.func.count(Visit.id))) == 2:
            done.set()


with app.app_context():
    db.create_all()
    scheduler = BackgroundScheduler(
        jobstores={
            "default": {"type": "memory"},
            "database": SQLAlchemyJobStore(engine=db.engine, metadata=db.metadata),
        }
    )

scheduler.start()
# A job that is in the store is found by its name.
scheduler.add_job(f"{__name__}:visit", jobstore="database", id="kept", trigger="date")
scheduler.add_job(visit)
assert done.wait(30)
scheduler.shutdown()
with app.app_context():
    assert db.engine.pool.checkedout() == 0
    assert db.session.scalar(db.select(db.func.count(Visit.id))) == 2
