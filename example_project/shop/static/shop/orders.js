"use strict";

// Keeps the table as the bucket is. Each connection to the stream begins with a replay of what is there, so that a page
// that was cut off is right again by itself.
const entries = document.getElementById("entries");

if (entries) {
  const state = document.getElementById("state");
  const form = document.getElementById("order");
  const moved = document.getElementById("moved");
  const blank = document.getElementById("row").content.querySelector("tr");
  let replayed = new Set();
  let complete = false;

  const rowOf = (key) => [...entries.rows].find((row) => row.dataset.key === key);

  function fill(row, entry) {
    row.dataset.key = entry.key;
    row.dataset.revision = entry.revision;
    const field = (name) => row.querySelector(`[data-field=${name}]`);
    field("key").textContent = entry.key;
    field("key").href = `${entries.dataset.page}?key=${encodeURIComponent(entry.key)}`;
    field("value").textContent = entry.value;
    field("revision").textContent = entry.revision;
    field("created").dateTime = entry.created;
    field("created").textContent = entry.created.slice(11, 19);
  }

  function apply(entry) {
    const row = rowOf(entry.key);
    if (entry.operation !== "put") {
      row?.remove();
    } else if (!row || Number(row.dataset.revision) !== entry.revision) {
      const fresh = row ?? blank.cloneNode(true);
      fill(fresh, entry);
      // The last change on top. The replay comes in the order of the writes.
      entries.prepend(fresh);
      if (complete) {
        fresh.classList.remove("changed");
        void fresh.offsetWidth; // begins the animation anew
        fresh.classList.add("changed");
      }
    }
    warn(entry);
  }

  // What is in the form was read from a revision; say so when that is no longer the newest.
  function warn(entry) {
    const seen = Number(form.elements.revision.value);
    if (seen && form.elements.key.value === entry.key && entry.revision > seen) {
      const what = entry.operation === "put" ? `changed to revision ${entry.revision}` : "deleted";
      moved.textContent = `Meanwhile it was ${what}: saving will lose the race.`;
      moved.hidden = false;
    }
  }

  const stream = new EventSource(entries.dataset.events);

  stream.addEventListener("open", () => {
    replayed = new Set();
    complete = false;
  });

  stream.addEventListener("entry", (event) => {
    const entry = JSON.parse(event.data);
    if (!complete) replayed.add(entry.key);
    apply(entry);
    document.getElementById("none").hidden = entries.rows.length > 0;
  });

  stream.addEventListener("complete", () => {
    complete = true;
    for (const row of [...entries.rows]) {
      if (!replayed.has(row.dataset.key)) row.remove();
    }
    document.getElementById("none").hidden = entries.rows.length > 0;
    state.textContent = "live";
    state.classList.add("live");
  });

  stream.addEventListener("error", () => {
    state.textContent = stream.readyState === EventSource.CLOSED ? "not live: load the page again" : "reconnecting";
    state.classList.remove("live");
  });
}
