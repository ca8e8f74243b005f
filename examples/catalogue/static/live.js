// Shows new notes: from a websocket where the page has one, else by asking the API.
"use strict";
const list = document.getElementById("live");
let after = Number(list.dataset.after);

function show(note) {
  after = note.id;
  const item = document.createElement("li");
  const link = document.createElement("a");
  link.href = `/entries/${note.entry_id}`;
  link.textContent = note.entry;
  const body = document.createElement("p");
  body.textContent = `${note.author}: ${note.body}`;
  item.append(link, body);
  list.prepend(item);
}

function listen() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  const socket = new WebSocket(`${scheme}://${location.host}${list.dataset.socket}?after=${after}`);
  socket.onmessage = (event) => show(JSON.parse(event.data));
  socket.onclose = () => setTimeout(listen, 2000);
}

async function ask() {
  const response = await fetch(`${list.dataset.api}?after=${after}`);
  if (response.ok) (await response.json()).forEach(show);
  setTimeout(ask, 2000);
}

list.dataset.socket ? listen() : ask();
