// Reading a view live: a snapshot, then JSON Patches against it (RFC 6902), as server-sent events.
//
// Read with fetch and not with EventSource, which can send neither a token nor, after an error of its own,
// Last-Event-ID. A dropped connection is opened again after 0.5 s, then 1, 2, ... at most 15, and says where it was.

export const QUIET_MS = 40_000; // heartbeats come every 15 s
const FIRST_MS = 500;
const LONGEST_MS = 15_000;

export class Refused extends Error {
  constructor(status, body) {
    super(body?.detail ?? `the server answers ${status}`);
    this.status = status;
  }
}

const kept = {};

/** The tokens that were given, by what they are for ("reads", "operations"), until the browser's tab is closed. */
export const token = {
  get(purpose) { try { return sessionStorage.getItem(purpose); } catch { return kept[purpose]; } },
  set(purpose, value) { kept[purpose] = value; try { sessionStorage.setItem(purpose, value); } catch { /* for this load only */ } },
};

/** The path as seen from the page, which may be behind a proxy that puts something before it. */
const from = (path) => new URL(path.slice(1), document.baseURI);

async function ask(path, headers, options = {}) {
  // a server that has one token only asks for that one everywhere
  const given = (path === "/api/operations" && token.get("operations")) || token.get("reads");
  if (given) headers.Authorization = `Bearer ${given}`;
  const response = await fetch(from(path), { headers, cache: "no-store", credentials: "omit", ...options });
  if (!response.ok) throw new Refused(response.status, await response.json().catch(() => null));
  return response;
}

/** The JSON of a view, once. Raises Refused, or TypeError without a connection. */
export async function get(path) {
  return (await ask(path, { Accept: "application/json" }, { signal: AbortSignal.timeout(15_000) })).json();
}

/** One view, live: `onData(body)` after every change, `onState("live" | "connecting" | "lost" | "refused", error)`. */
export class Live {
  #path; #onData; #onState; #abort = null; #timer = null; #tries = 0; #id = null; #body; #running = false;

  constructor(path, { onData, onState = () => {} }) {
    this.#path = path;
    this.#onData = onData;
    this.#onState = onState;
  }

  start() {
    if (this.#running) return;
    this.#running = true;
    this.#tries = 0;
    this.#open();
  }

  stop() {
    this.#running = false;
    clearTimeout(this.#timer);
    this.#abort?.abort();
  }

  /** Now and not when the pause is over, for instance since the network is back. */
  hurry() {
    if (!this.#running || this.#abort) return;
    clearTimeout(this.#timer);
    this.#open();
  }

  async #open() {
    const abort = (this.#abort = new AbortController());
    let watchdog;
    const watch = () => { clearTimeout(watchdog); watchdog = setTimeout(() => abort.abort(), QUIET_MS); };
    try {
      watch();
      const headers = { Accept: "text/event-stream" };
      if (this.#id) headers["Last-Event-ID"] = this.#id;
      const response = await ask(this.#path, headers, { signal: abort.signal });
      this.#tries = 0;
      this.#onState("live");
      for await (const event of events(response.body, watch)) this.#take(event);
      this.#failed(abort, null);
    } catch (error) {
      this.#failed(abort, error);
    } finally {
      clearTimeout(watchdog);
    }
  }

  #take({ type, id, data }) {
    if (type === "snapshot") this.#body = JSON.parse(data);
    else if (type === "delta") {
      try {
        this.#body = patched(this.#body, JSON.parse(data));
      } catch (error) {
        this.#id = null; // a snapshot, then
        throw error;
      }
    } else if (type === "problem") {
      const body = JSON.parse(data);
      this.#id = null;
      throw new Refused(body.status, body);
    } else return;
    if (id != null) this.#id = id;
    this.#onData(this.#body);
  }

  #failed(abort, error) {
    if (this.#abort !== abort) return;
    this.#abort = null;
    abort.abort();
    if (!this.#running) return;
    this.#onState(error instanceof Refused ? "refused" : "lost", error);
    const pause = Math.min(LONGEST_MS, FIRST_MS * 2 ** this.#tries++) * (0.75 + Math.random() / 2);
    this.#timer = setTimeout(() => this.#open(), pause);
  }
}

/** The events of a stream; `heard` is called whenever something comes, heartbeats too. */
async function* events(stream, heard) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { type: "message", data: [] };
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    heard();
    const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      if (line === "") {
        if (event.data.length) yield { type: event.type, id: event.id, data: event.data.join("\n") };
        event = { type: "message", data: [] };
        continue;
      }
      const colon = line.indexOf(":");
      const name = colon < 0 ? line : line.slice(0, colon);
      const said = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
      if (name === "event") event.type = said;
      else if (name === "data") event.data.push(said);
      else if (name === "id") event.id = said;
    }
  }
}

/** A document after a JSON Patch. It is changed in place; what was given must not be used any more. */
export function patched(document, patch) {
  const root = { "": document };
  for (const { op, path, from: source, value } of patch) {
    if (op === "test") {
      if (JSON.stringify(read(root, path)) !== JSON.stringify(value)) throw new Error(`${path} is not what it should be`);
    } else if (op === "remove") remove(root, path);
    else if (op === "move") write(root, path, remove(root, source), true);
    else if (op === "copy") write(root, path, structuredClone(read(root, source)), true);
    else write(root, path, value, op === "add");
  }
  return root[""];
}

const names = (path) => path.split("/").map((name) => name.replaceAll("~1", "/").replaceAll("~0", "~"));

function holder(root, path) {
  const all = names(path);
  const last = all.pop();
  let place = root;
  for (const name of all) {
    // own ones only: a key such as __proto__, which a customer may send, must lead nowhere else
    place = Object.hasOwn(place, name) ? place[name] : null;
    if (place === null || typeof place !== "object") throw new Error(`there is no ${path}`);
  }
  return [place, last];
}

function read(root, path) {
  const [place, name] = holder(root, path);
  return place[name];
}

function remove(root, path) {
  const [place, name] = holder(root, path);
  if (!Object.hasOwn(place, name)) throw new Error(`there is no ${path}`);
  if (Array.isArray(place)) return place.splice(Number(name), 1)[0];
  const value = place[name];
  delete place[name];
  return value;
}

function write(root, path, value, insert) {
  const [place, name] = holder(root, path);
  if (Array.isArray(place) && insert) {
    const at = name === "-" ? place.length : Number(name);
    if (!(at >= 0 && at <= place.length)) throw new Error(`there is no ${path}`);
    place.splice(at, 0, value);
  } else {
    if (!insert && !Object.hasOwn(place, name)) throw new Error(`there is no ${path}`);
    Object.defineProperty(place, name, { value, writable: true, enumerable: true, configurable: true });
  }
}
