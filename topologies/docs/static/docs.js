// Shows the document of the API and asks what it describes. Text is set as text, never as HTML: the document and the
// answers are of others.

const SHOWN_CHARS = 200_000;
const SHOWN_EVENTS = 20;
const find = (id) => document.getElementById(id);

/** An element: attributes by name, `on<event>` for listeners, children are nodes or texts. */
function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value != null && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child != null));
  return element;
}

/** A text whose `parts` between backticks are code. */
const prose = (words) => words.split("`").map((part, at) => (at % 2 ? h("code", {}, part) : part));

// As the dashboard keeps them, by what they are for, until the browser's tab is closed.
const stored = (purpose) => { try { return sessionStorage.getItem(purpose); } catch { return null; } };
const keep = (purpose, token) => { try { sessionStorage.setItem(purpose, token); } catch { /* then it is asked for again */ } };

function ask(url, { purpose = "reads", ...options } = {}) {
  const token = find("token").value || stored(purpose);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  return fetch(url, { ...options, headers, cache: "no-store", credentials: "same-origin" });
}

function say(words) {
  find("said").textContent = words ?? "";
  find("said").hidden = words == null;
}

// --- schemas ---------------------------------------------------------------------------------------------------------

function resolve(spec, schema) {
  let found = schema ?? {};
  while (found.$ref) found = found.$ref.split("/").slice(1).reduce((at, part) => at[part], spec);
  return found;
}

function typeOf(spec, schema) {
  const name = schema?.$ref?.split("/").at(-1);
  if (name) return name;
  const found = schema ?? {};
  const several = found.anyOf ?? found.oneOf;
  if (several) return several.map((one) => typeOf(spec, one)).join(" or ");
  if (found.enum) return found.enum.map((one) => JSON.stringify(one)).join(" | ");
  if (found.type === "array") return `list of ${typeOf(spec, found.items)}`;
  if (found.type === "object" && typeof found.additionalProperties === "object") {
    return `map to ${typeOf(spec, found.additionalProperties)}`;
  }
  return [found.type ?? "anything", found.format && `(${found.format})`].filter(Boolean).join(" ");
}

/** What a schema's object has, whatever wraps it. */
function inner(spec, schema) {
  const found = resolve(spec, schema);
  if (found.properties) return found;
  const within = found.items ?? (typeof found.additionalProperties === "object" ? found.additionalProperties : null);
  if (within) return inner(spec, within);
  return (found.anyOf ?? []).map((one) => inner(spec, one)).find(Boolean) ?? null;
}

function fields(spec, schema) {
  const found = inner(spec, schema);
  if (!found) return null;
  const required = new Set(found.required ?? []);
  return h("ul", { class: "schema" }, Object.entries(found.properties).map(([name, one]) => {
    const about = one.description ?? resolve(spec, one).description;
    const told = [
      h("code", {}, name), ` ${typeOf(spec, one)}`, required.has(name) ? null : " (optional)",
      about ? h("span", { class: "quiet" }, ` · ${about}`) : null,
    ];
    if (!inner(spec, one)) return h("li", {}, told);
    // made when it is opened: schemas may contain themselves
    const more = h("details", { ontoggle: () => more.open && more.children.length < 2 && more.append(fields(spec, one)) }, h("summary", {}, told));
    return h("li", {}, more);
  }));
}

// --- one operation ---------------------------------------------------------------------------------------------------

function limits(schema) {
  const told = [];
  if (schema.minimum != null) told.push(`${schema.minimum} to ${schema.maximum}`);
  if (schema.maxLength != null) told.push(`at most ${schema.maxLength.toLocaleString("en")} characters`);
  if (schema.maxItems != null) told.push(`at most ${schema.maxItems}, one per line`);
  if (schema.default != null) told.push(`${schema.default} unless given`);
  return told.join(", ");
}

function input(parameter, id) {
  const schema = parameter.schema;
  const named = { id, name: parameter.name, required: parameter.required === true };
  if (schema.enum) {
    const none = parameter.required ? [] : [h("option", { value: "" }, schema.default ? `${schema.default} (default)` : "")];
    return h("select", named, none, schema.enum.map((one) => h("option", { value: one }, one)));
  }
  if (schema.type === "array") return h("textarea", { ...named, rows: 2, spellcheck: "false" });
  const number = schema.type === "integer" || schema.type === "number";
  return h("input", {
    ...named,
    type: number ? "number" : "text",
    min: schema.minimum, max: schema.maximum, step: schema.type === "number" ? "any" : null,
    maxlength: schema.maxLength, pattern: schema.pattern?.replace(/^\^|\$$/g, ""),
    placeholder: schema.default ?? schema.examples?.[0] ?? parameter.example ?? "",
    autocomplete: "off", spellcheck: "false",
  });
}

function address(path, operation, form) {
  const query = new URLSearchParams();
  let url = path.slice(1);
  const headers = {};
  for (const { name, in: place, schema } of operation.parameters) {
    const value = form.elements.namedItem(name)?.value ?? "";
    if (value === "") continue;
    if (place === "path") url = url.replace(`{${name}}`, encodeURIComponent(value));
    else if (place === "header") headers[name] = value;
    else for (const one of schema.type === "array" ? value.split("\n").filter(Boolean) : [value]) query.append(name, one);
  }
  return { url: url + (query.size ? `?${query}` : ""), headers };
}

function pretty(text, type) {
  let shown = text;
  if (type.includes("json")) { try { shown = JSON.stringify(JSON.parse(text), null, 2); } catch { /* as it came */ } }
  return shown.length > SHOWN_CHARS ? `${shown.slice(0, SHOWN_CHARS)}\n… ${text.length.toLocaleString("en")} characters in all` : shown;
}

async function listen(response, out) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  const events = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    events.push(...parts.filter((part) => part !== ":"));
    out.textContent = events.slice(-SHOWN_EVENTS).map((one) => one.slice(0, 4_000)).reverse().join("\n\n");
  }
}

function trial(spec, path, method, operation) {
  const status = h("span", { class: "status", role: "status" });
  const out = h("pre", { hidden: true, tabindex: "0", "aria-label": "The answer" });
  const stop = h("button", { type: "button", hidden: true, onclick: () => abort?.abort() }, "Stop");
  const good = Object.entries(operation.responses).find(([code]) => code.startsWith("2"))[1];
  const live = Object.keys(good.content).every((type) => type === "text/event-stream");
  const sent = operation.requestBody?.content["application/json"];
  const exemplary = sent && Object.entries(resolve(spec, sent.schema).properties).filter(([, one]) => one.examples);
  const example = sent && JSON.stringify(Object.fromEntries(exemplary.map(([name, one]) => [name, one.examples[0]])));
  const body = sent ? h("textarea", { id: `${operation.operationId}-body`, rows: 4, spellcheck: "false" }, example) : null;
  const other = (operation.security ?? []).some((one) => "operations" in one);
  const given = other ? h("input", { type: "password", id: `${operation.operationId}-token`, autocomplete: "off" }) : null;
  let abort = null;
  const form = h("form", {
    async onsubmit(event) {
      event.preventDefault();
      abort?.abort();
      abort = new AbortController();
      const { url, headers } = address(path, operation, form);
      const purpose = Object.keys(operation.security?.[0] ?? { reads: [] })[0];
      if (given?.value) keep(purpose, given.value);
      const began = performance.now();
      status.textContent = "…";
      try {
        if (body) headers["Content-Type"] = "application/json";
        const response = await ask(url, { method, headers, body: body?.value, signal: abort.signal, purpose });
        const type = response.headers.get("Content-Type") ?? "";
        status.dataset.good = response.ok;
        out.hidden = false;
        if (type.startsWith("text/event-stream")) {
          stop.hidden = false;
          status.textContent = `${response.status}, newest event first · /${url}`;
          await listen(response, out);
        } else {
          const text = await response.text();
          status.textContent = `${response.status} in ${Math.round(performance.now() - began)} ms, ${text.length.toLocaleString("en")} characters · /${url}`;
          out.textContent = pretty(text, type);
        }
      } catch (error) {
        status.dataset.good = error.name === "AbortError";
        status.textContent = error.name === "AbortError" ? "stopped" : `no answer: ${error.message}`;
      } finally {
        stop.hidden = true;
      }
    },
  });
  form.append(
    ...operation.parameters.map((parameter) => {
      const id = `${operation.operationId}-${parameter.name}`;
      return h(
        "div", { class: "field" },
        h("label", { for: id }, h("code", {}, parameter.name), h("span", { class: "quiet" }, parameter.in === "query" ? "" : ` ${parameter.in}`), parameter.required ? " *" : null),
        input(parameter, id),
        h("p", {}, prose(parameter.description ?? ""), h("span", { class: "quiet" }, ` ${limits(parameter.schema)}`)),
      );
    }),
    ...(body ? [h("div", { class: "field" }, h("label", { for: body.id }, "Body *"), body, h("p", {}))] : []),
    ...(given ? [h("div", { class: "field" }, h("label", { for: given.id }, "Token for operations"), given, h("p", {}))] : []),
    h("div", { class: "actions" }, h("button", { type: "submit" }, live ? "Listen" : method === "GET" ? "Ask" : "Send"), stop, status),
    out,
  );
  return form;
}

function answers(spec, operation) {
  return Object.entries(operation.responses).map(([code, response]) => {
    const told = Object.entries(response.content ?? {}).map(([type, { schema }]) => [
      h("p", {}, h("code", {}, type), h("span", { class: "quiet" }, ` ${typeOf(spec, schema)} ${resolve(spec, schema).description ?? ""}`)),
      code.startsWith("2") ? fields(spec, schema) : null,
    ]);
    return h("div", {}, h("p", {}, h("span", { class: "status", "data-good": String(code < "4") }, code), " ", prose(response.description)), told.flat());
  });
}

function shown(spec, path, method, operation) {
  const body = h("div", {});
  const sent = operation.requestBody?.content["application/json"].schema;
  const element = h(
    "details", {
      class: "operation", id: operation.operationId,
      ontoggle() {
        if (!element.open || body.children.length) return;
        body.append(
          ...[
            operation.description ? h("p", {}, prose(operation.description)) : null,
            h("h3", {}, operation.parameters.length ? "Parameters" : "Try it"), trial(spec, path, method, operation),
            ...(sent ? [h("h3", {}, "Body"), fields(spec, sent)] : []),
            h("h3", {}, "Answers"), ...answers(spec, operation),
          ].filter(Boolean),
        );
      },
    },
    h("summary", {}, h("span", { class: "method" }, method), h("code", {}, path), h("span", {}, operation.summary)),
    body,
  );
  const words = [path, operation.summary, ...operation.parameters.map((one) => one.name), ...Object.keys(operation.responses)];
  return { element, words: words.join(" ").toLowerCase() };
}

// --- the whole -------------------------------------------------------------------------------------------------------

function show(spec) {
  find("title").textContent = `${spec.info.title} ${spec.info.version}`;
  find("about").replaceChildren(...spec.info.description.trim().split("\n\n").map((part) => h("p", {}, prose(part))));
  find("dashboard").hidden = !spec.paths["/"];
  const groups = new Map();
  for (const [path, methods] of Object.entries(spec.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags[0];
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(shown(spec, path, method.toUpperCase(), operation));
    }
  }
  const sections = [...groups].map(([tag, operations]) => {
    const section = h("section", { "aria-labelledby": `tag-${tag}` }, h("h2", { id: `tag-${tag}` }, tag), operations.map((one) => one.element));
    return { section, operations };
  });
  find("operations").replaceChildren(...sections.map((one) => one.section));
  find("tags").replaceChildren(...[...groups.keys()].map((tag) => h("a", { href: `#tag-${tag}` }, tag)));
  find("filter").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const { section, operations } of sections) {
      for (const { element, words } of operations) element.hidden = !wanted.every((word) => words.includes(word));
      section.hidden = operations.every(({ element }) => element.hidden);
    }
  });
  const chosen = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (chosen?.matches("details")) chosen.open = true;
  chosen?.scrollIntoView();
}

async function load() {
  try {
    const response = await ask("openapi.json");
    find("ask").hidden = response.status !== 401;
    if (response.status === 401) return say(find("token").value ? "This is not the token." : null);
    if (!response.ok) return say(`The server answered with ${response.status}.`);
    if (find("token").value) keep("reads", find("token").value);
    find("token").value = "";
    show(await response.json());
    say(null);
  } catch (error) {
    say(`The document cannot be read: ${error.message}`);
  }
}

find("ask").addEventListener("submit", (event) => { event.preventDefault(); load(); });
load();
