"""The catalogue on Quart: views are coroutines, and what touches ``db`` is awaited."""

from __future__ import annotations

import asyncio
from typing import Any

from quart import Quart, redirect, render_template, request, url_for, websocket
from sqlalchemy.exc import IntegrityError
from werkzeug.exceptions import HTTPException

from . import queries, seed, settings
from .models import Entry, Note, Tag, db
from .queries import Filters, NoteForm

LIVE_INTERVAL = 0.5  # seconds


def create_app(config: dict[str, Any] | None = None) -> Quart:
    app = Quart(__name__)
    app.config.update(config or settings.read())
    db.init_app(app)
    app.jinja_env.globals.update(framework="Quart", kinds=queries.KINDS)

    @app.cli.command("seed", with_appcontext=True)
    def seed_command() -> None:
        """Fill an empty catalogue with the standard library."""
        print(f"{seed.fill()} entries added")

    @app.get("/")
    async def index() -> str:
        filters = Filters.read(request.args)
        page = await db.paginate(queries.entries(filters), per_page=queries.PER_PAGE)
        return await render_template("index.html", page=page, filters=filters)

    @app.get("/entries/<int:entry_id>")
    async def entry(entry_id: int) -> str:
        return await show_entry(entry_id, NoteForm())

    async def show_entry(entry_id: int, form: NoteForm) -> str:
        entry = await db.get_or_404(Entry, entry_id, options=queries.WITH_TAGS)
        page = await db.paginate_keyset(queries.notes_on(entry_id))
        return await render_template("entry.html", entry=entry, page=page, form=form)

    @app.post("/entries/<int:entry_id>/notes")
    async def add_note(entry_id: int) -> Any:
        form = NoteForm.read(await request.form)
        if form.errors:
            return await show_entry(entry_id, form), 422
        await create_note(entry_id, form)
        return redirect(url_for("entry", entry_id=entry_id))

    async def create_note(entry_id: int, form: NoteForm) -> Note:
        await db.get_or_404(Entry, entry_id)
        note = form.apply(Note(entry_id=entry_id))
        db.session.add(note)
        await db.session.commit()
        app.add_background_task(recount_notes, entry_id)
        return note

    async def recount_notes(entry_id: int) -> None:
        # Runs after the response, in an app context, and so in a session, of its own.
        await db.session.execute(queries.recount_notes(entry_id))
        await db.session.commit()

    @app.route("/notes/<int:note_id>/edit", methods=["GET", "POST"])
    async def edit_note(note_id: int) -> Any:
        note = await db.get_or_404(Note, note_id)
        form = NoteForm.of(note)
        if request.method == "POST":
            form = NoteForm.read(await request.form)
            if not form.errors:
                form.apply(note)
                await db.session.commit()
                return redirect(url_for("entry", entry_id=note.entry_id))
        page = await render_template("note.html", note=note, form=form)
        return page, 422 if form.errors else 200

    @app.post("/notes/<int:note_id>/delete")
    async def delete_note(note_id: int) -> Any:
        note = await db.get_or_404(Note, note_id)
        await db.session.delete(note)
        await db.session.commit()
        app.add_background_task(recount_notes, note.entry_id)
        return redirect(url_for("entry", entry_id=note.entry_id))

    @app.post("/entries/<int:entry_id>/tags")
    async def add_tag(entry_id: int) -> Any:
        entry = await db.get_or_404(Entry, entry_id, options=queries.WITH_TAGS)
        name = queries.tag_name((await request.form).get("name"))
        if name and name not in {tag.name for tag in entry.tags}:
            tag = (await db.session.scalars(queries.tag_named(name))).first()
            entry.tags.append(tag or Tag(name=name))
            try:
                await db.session.commit()
            except IntegrityError:  # somebody added it at the same moment
                await db.session.rollback()
        return redirect(url_for("entry", entry_id=entry_id))

    @app.post("/entries/<int:entry_id>/tags/<int:tag_id>/delete")
    async def remove_tag(entry_id: int, tag_id: int) -> Any:
        entry = await db.get_or_404(Entry, entry_id, options=queries.WITH_TAGS)
        entry.tags = [tag for tag in entry.tags if tag.id != tag_id]
        await db.session.commit()
        return redirect(url_for("entry", entry_id=entry_id))

    @app.get("/live")
    async def live() -> str:
        latest = await db.first_or_404(queries.latest_note_id())
        return await render_template("live.html", latest=latest, socket="/live/socket")

    @app.websocket("/live/socket")
    async def live_socket() -> None:
        # A socket may stay open for hours. Each look takes a session of its own, which
        # gives its connection back before the wait.
        latest = websocket.args.get("after", 0, type=int)
        await websocket.accept()
        while True:
            async with db.aio.sessionmaker() as session:
                notes = (await session.scalars(queries.notes_after(latest))).all()
            for note in notes:
                await websocket.send_json(queries.live_json(note))
                latest = note.id
            await asyncio.sleep(LIVE_INTERVAL)

    @app.get("/api/entries")
    async def api_entries() -> Any:
        filters = Filters.read(request.args)
        page = await db.paginate(queries.entries(filters))
        return queries.page_json(page), {"Link": page.link_header()}

    @app.get("/api/entries/<int:entry_id>")
    async def api_entry(entry_id: int) -> dict[str, Any]:
        entry = await db.get_or_404(Entry, entry_id, options=queries.WITH_TAGS)
        return queries.entry_json(entry, doc=True)

    @app.post("/api/entries/<int:entry_id>/notes")
    async def api_add_note(entry_id: int) -> Any:
        form = NoteForm.read(await request.get_json())
        if form.errors:
            return {"errors": form.errors}, 422
        return queries.note_json(await create_note(entry_id, form)), 201

    @app.get("/api/notes")
    async def api_notes() -> list[dict[str, Any]]:
        after = request.args.get("after", 0, type=int)
        notes = await db.session.scalars(queries.notes_after(after))
        return [queries.live_json(note) for note in notes]

    @app.errorhandler(HTTPException)
    async def http_error(error: HTTPException) -> Any:
        if request.path.startswith("/api/"):
            return {"error": error.name}, error.code or 500
        return await render_template("error.html", error=error), error.code or 500

    return app
