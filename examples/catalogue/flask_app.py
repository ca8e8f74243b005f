"""The catalogue on Flask: the same site, and nothing is awaited."""

from __future__ import annotations

from typing import Any, cast

from flask import Flask, redirect, render_template, request, url_for
from sqlalchemy.exc import IntegrityError
from werkzeug.exceptions import HTTPException

from dualchemy.flask import SQLAlchemy

from . import models, queries, seed, settings
from .models import Entry, Note, Tag
from .queries import Filters, NoteForm

# The same object as in the Quart app. Its class is the same one, too: a type checker
# sees the API of Flask through this name.
db = cast("SQLAlchemy", models.db)


def create_app(config: dict[str, Any] | None = None) -> Flask:
    app = Flask(__name__)
    app.config.update(config or settings.read())
    db.init_app(app)
    app.jinja_env.globals.update(framework="Flask", kinds=queries.KINDS)

    @app.cli.command("seed")
    def seed_command() -> None:
        """Fill an empty catalogue with the standard library."""
        print(f"{seed.fill()} entries added")

    @app.get("/")
    def index() -> str:
        filters = Filters.read(request.args)
        page = db.paginate(queries.entries(filters), per_page=queries.PER_PAGE)
        return render_template("index.html", page=page, filters=filters)

    @app.get("/entries/<int:entry_id>")
    def entry(entry_id: int) -> str:
        return show_entry(entry_id, NoteForm())

    def show_entry(entry_id: int, form: NoteForm) -> str:
        entry = db.get_or_404(Entry, entry_id, options=queries.WITH_TAGS)
        page = db.paginate_keyset(queries.notes_on(entry_id))
        return render_template("entry.html", entry=entry, page=page, form=form)

    @app.post("/entries/<int:entry_id>/notes")
    def add_note(entry_id: int) -> Any:
        form = NoteForm.read(request.form)
        if form.errors:
            return show_entry(entry_id, form), 422
        create_note(entry_id, form)
        return redirect(url_for("entry", entry_id=entry_id))

    def create_note(entry_id: int, form: NoteForm) -> Note:
        db.get_or_404(Entry, entry_id)
        note = form.apply(Note(entry_id=entry_id))
        db.session.add(note)
        db.session.flush()
        db.session.execute(queries.recount_notes(entry_id))
        db.session.commit()
        return note

    @app.route("/notes/<int:note_id>/edit", methods=["GET", "POST"])
    def edit_note(note_id: int) -> Any:
        note = db.get_or_404(Note, note_id)
        form = NoteForm.of(note)
        if request.method == "POST":
            form = NoteForm.read(request.form)
            if not form.errors:
                form.apply(note)
                db.session.commit()
                return redirect(url_for("entry", entry_id=note.entry_id))
        page = render_template("note.html", note=note, form=form)
        return page, 422 if form.errors else 200

    @app.post("/notes/<int:note_id>/delete")
    def delete_note(note_id: int) -> Any:
        note = db.get_or_404(Note, note_id)
        entry_id = note.entry_id
        db.session.delete(note)
        db.session.flush()
        db.session.execute(queries.recount_notes(entry_id))
        db.session.commit()
        return redirect(url_for("entry", entry_id=entry_id))

    @app.post("/entries/<int:entry_id>/tags")
    def add_tag(entry_id: int) -> Any:
        entry = db.get_or_404(Entry, entry_id, options=queries.WITH_TAGS)
        name = queries.tag_name(request.form.get("name"))
        if name and name not in {tag.name for tag in entry.tags}:
            tag = db.session.scalars(queries.tag_named(name)).first()
            entry.tags.append(tag or Tag(name=name))
            try:
                db.session.commit()
            except IntegrityError:  # somebody added it at the same moment
                db.session.rollback()
        return redirect(url_for("entry", entry_id=entry_id))

    @app.post("/entries/<int:entry_id>/tags/<int:tag_id>/delete")
    def remove_tag(entry_id: int, tag_id: int) -> Any:
        entry = db.get_or_404(Entry, entry_id, options=queries.WITH_TAGS)
        entry.tags = [tag for tag in entry.tags if tag.id != tag_id]
        db.session.commit()
        return redirect(url_for("entry", entry_id=entry_id))

    @app.get("/live")
    def live() -> str:
        # WSGI has no websockets: the page asks the API again and again.
        latest = db.first_or_404(queries.latest_note_id())
        return render_template("live.html", latest=latest, socket="")

    @app.get("/api/entries")
    def api_entries() -> Any:
        filters = Filters.read(request.args)
        page = db.paginate(queries.entries(filters))
        return queries.page_json(page), {"Link": page.link_header()}

    @app.get("/api/entries/<int:entry_id>")
    def api_entry(entry_id: int) -> dict[str, Any]:
        entry = db.get_or_404(Entry, entry_id, options=queries.WITH_TAGS)
        return queries.entry_json(entry, doc=True)

    @app.post("/api/entries/<int:entry_id>/notes")
    def api_add_note(entry_id: int) -> Any:
        form = NoteForm.read(request.get_json())
        if form.errors:
            return {"errors": form.errors}, 422
        return queries.note_json(create_note(entry_id, form)), 201

    @app.get("/api/notes")
    def api_notes() -> list[dict[str, Any]]:
        after = request.args.get("after", 0, type=int)
        notes = db.session.scalars(queries.notes_after(after))
        return [queries.live_json(note) for note in notes]

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Any:
        if request.path.startswith("/api/"):
            return {"error": error.name}, error.code or 500
        return render_template("error.html", error=error), error.code or 500

    return app
