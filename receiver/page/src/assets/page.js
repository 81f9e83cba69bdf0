// Live values, a cursor over plots, search while typing, waiting for a machine. Each page works without this file.
//
// Names and labels are text of somebody else's: they are set as text, and no HTML is made here. What
// is asked for again comes as a document that the browser has parsed, whose scripts never run.

const byId = (id) => document.getElementById(id);

// ---- Pages that are asked for again

let asked;

/** Asks for a page as a document. A newer request ends an older one. */
function ask(url, take, end) {
  asked?.abort();
  const request = new XMLHttpRequest();
  asked = request;
  request.open("GET", url);
  request.responseType = "document";
  request.onload = () => {
    if (request.status === 200 && request.response) take(request.response);
  };
  request.onloadend = () => end?.();
  request.send();
}

/**
 * Puts the parts of a newer page in place of those that are shown. A status is kept, and says what the
 * newer one says: a screen reader tells what changes in one that it knows. The focus stays where it was.
 */
function take(page, ids) {
  const focused = document.activeElement;
  for (const id of ids) {
    const [shown, newer] = [byId(id), page.getElementById(id)];
    if (!shown || !newer) continue;
    if (shown.getAttribute("role") !== "status") {
      shown.replaceWith(newer);
      continue;
    }
    if (!newer.dataset.again) delete shown.dataset.again;
    if (shown.textContent !== newer.textContent) shown.replaceChildren(...newer.childNodes);
  }
  if (!focused.isConnected) {
    const href = focused.getAttribute("href");
    const same = [...document.links].find((link) => link.getAttribute("href") === href);
    same?.focus({ preventScroll: true });
  }
  document.title = page.title;
  document.body.dataset.live = page.body.dataset.live ?? "";
  prepare();
}

// ---- Search

function search(form) {
  const input = form.querySelector("input[type=search]");
  let timer;
  input.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => {
      const query = new URLSearchParams(new FormData(form));
      if (!input.value) query.delete("q");
      const url = `?${query}`;
      ask(url, (page) => {
        history.replaceState(null, "", url);
        take(page, [form.dataset.search, "count", "shape"]);
        connect();
      });
    }, 150);
  });
}

// ---- What is waited for

const LOOK_MILLIS = 2_000;

/** Asks for a status again until it says that there is nothing to wait for. */
function wait() {
  const waiting = document.querySelector("[data-again]");
  if (!waiting) return;
  const look = () => ask(waiting.dataset.again, (page) => take(page, [waiting.id]), wait);
  setTimeout(look, LOOK_MILLIS);
}

// ---- Live values

const ATTRIBUTES = new Set(["d", "data-window"]);
const AGAIN_MILLIS = 10_000;
let source;
let retry;

function say(text, isOn) {
  const state = byId("live");
  if (state.textContent !== text) state.textContent = text;
  state.classList.toggle("on", isOn);
}

function disconnect() {
  clearTimeout(retry);
  source?.close();
  source = undefined;
}

/** Windows that are not seen need no events, and a browser has few connections for each server. */
function connect() {
  disconnect();
  const url = document.body.dataset.live;
  if (!url || document.hidden) return;
  source = new EventSource(url);
  source.onopen = () => say("Live", true);
  source.onerror = () => {
    const isRefused = source.readyState === EventSource.CLOSED;
    say(isRefused ? "Not live: reload to see why" : "Reconnecting", false);
    if (isRefused) retry = setTimeout(connect, AGAIN_MILLIS);
  };
  source.addEventListener("summaries", (event) => show(JSON.parse(event.data)));
}

function show({ set, rows, shape }) {
  for (const [id, what, value] of set) {
    const element = byId(id);
    if (!element) continue;
    if (what === "text") element.textContent = value;
    else if (ATTRIBUTES.has(what)) element.setAttribute(what, value);
  }
  for (const [id, end, max, cells] of rows) showRow(byId(id), end, max, cells);
  cursor?.show();
  const shown = byId("shape");
  if (shape && shown && shown.dataset.shape !== shape) {
    shown.dataset.shape = shape;
    const isAHost = document.querySelector(".facts") !== null;
    const parts = isAHost ? ["shape"] : ["shape", "count", "results"];
    ask(location.search || "?", (page) => take(page, parts));
  }
}

/** A row of a table of values: the last one, or one after it. */
function showRow(table, end, max, cells) {
  if (!table?.rows.length) return;
  let row = [...table.rows].findLast((row) => Number(row.dataset.end) <= end);
  if (!row) return;
  if (Number(row.dataset.end) < end) {
    const added = row.cloneNode(true);
    added.dataset.end = end;
    row.after(added);
    row = added;
    if (table.rows.length > max) table.rows[0].remove();
  }
  cells.forEach((text, at) => {
    row.cells[at].textContent = text;
  });
}

// ---- The cursor over a plot

const SVG = "http://www.w3.org/2000/svg";
let cursor;

/** Reads a plot's values from its table, and shows the one under the pointer or chosen by a key. */
class Cursor {
  constructor(figure) {
    this.canvas = figure.querySelector(".canvas");
    this.svg = this.canvas.querySelector("svg");
    this.table = byId(figure.dataset.table);
    this.line = document.createElementNS(SVG, "line");
    this.line.setAttribute("class", "cursor");
    this.line.setAttribute("y2", "100");
    this.read = document.createElement("output");
    this.read.className = "read";
    figure.append(this.read);
    const canvas = this.canvas;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "slider");
    canvas.setAttribute("aria-label", this.svg.getAttribute("aria-label"));
    this.svg.setAttribute("aria-hidden", "true");
    this.svg.removeAttribute("role");
    canvas.addEventListener("pointermove", (event) => this.point(event));
    canvas.addEventListener("pointerleave", () => this.leave());
    canvas.addEventListener("focus", () => this.choose(this.at ?? this.rows.length - 1));
    canvas.addEventListener("blur", () => this.leave());
    canvas.addEventListener("keydown", (event) => this.press(event));
    this.tell(this.rows.length - 1);
  }

  get rows() {
    return this.table.rows;
  }

  /** Where a row is, in the units of the drawing. */
  x(row) {
    const [from, to, width] = this.svg.dataset.window.split(" ").map(Number);
    // An interval is ten units wide.
    return ((Number(row.dataset.end) - from) / (to - from)) * width - 5;
  }

  point(event) {
    const box = this.svg.getBoundingClientRect();
    const width = Number(this.svg.dataset.window.split(" ")[2]);
    const wanted = ((event.clientX - box.left) / box.width) * width;
    const distance = (row) => Math.abs(this.x(row) - wanted);
    let nearest = 0;
    for (let at = 1; at < this.rows.length; at += 1) {
      if (distance(this.rows[at]) < distance(this.rows[nearest])) nearest = at;
    }
    this.choose(nearest);
  }

  press(event) {
    const last = this.rows.length - 1;
    const at = this.at ?? last;
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: 10, PageDown: -10 };
    const to = { Home: 0, End: last }[event.key] ?? at + steps[event.key];
    if (Number.isNaN(to)) return;
    event.preventDefault();
    this.choose(Math.min(Math.max(to, 0), last));
  }

  choose(at) {
    cursor = this;
    this.at = at;
    this.show();
  }

  leave() {
    if (document.activeElement === this.canvas) return;
    this.at = undefined;
    this.line.remove();
    this.read.textContent = "";
    if (cursor === this) cursor = undefined;
  }

  /** In words, for who does not see the line. */
  tell(at) {
    const row = this.rows[at];
    const [end, samples, mean, min, max] = [...row.cells].map((cell) => cell.textContent);
    const words = `${end}: mean ${mean}, min ${min}, max ${max}, samples ${samples}`;
    const attributes = { valuemin: 0, valuemax: this.rows.length - 1, valuenow: at, valuetext: words };
    for (const [name, value] of Object.entries(attributes)) {
      this.canvas.setAttribute(`aria-${name}`, value);
    }
    return words;
  }

  show() {
    if (this.at === undefined) return;
    this.at = Math.min(this.at, this.rows.length - 1);
    const x = this.x(this.rows[this.at]);
    this.line.setAttribute("x1", x);
    this.line.setAttribute("x2", x);
    this.svg.append(this.line);
    this.read.textContent = this.tell(this.at);
  }
}

// ---- The start

/** Plots that are new on the page. */
function prepare() {
  for (const figure of document.querySelectorAll("figure.plot:not([data-ready])")) {
    figure.dataset.ready = "";
    if (byId(figure.dataset.table)?.rows.length) new Cursor(figure);
  }
}

prepare();
wait();
for (const form of document.querySelectorAll("form[data-search]")) search(form);
document.addEventListener("visibilitychange", connect);
// A page that is kept for the Back button keeps no connection.
addEventListener("pagehide", disconnect);
addEventListener("pageshow", connect);
