// Making and changing elements. Text is set as text, never as HTML, and only where it differs: what stands still on the
// screen is not touched, so that selections, focus and screen readers are left in peace.

const SVG = new Set(["svg", "path", "line", "text", "g", "circle", "rect", "title"]);

/** An element: attributes by name, `on<event>` for listeners, children are nodes or texts. */
export function h(name, attributes = {}, ...children) {
  const element = SVG.has(name)
    ? document.createElementNS("http://www.w3.org/2000/svg", name)
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else attribute(element, key, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export function attribute(element, name, value) {
  if (value == null || value === false) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value === true ? "" : value);
  }
}

export function text(element, value) {
  const said = value == null ? "" : String(value);
  if (element.textContent !== said) element.textContent = said;
}

export function show(element, visible) {
  if (element.hidden === visible) element.hidden = !visible;
}

/** Children of `parent` by key: made once by `make(row)`, brought up to date by `update(element, row)`, in order. */
export function each(parent, rows, keyOf, make, update) {
  const before = (parent._each ??= new Map());
  const now = new Map();
  let place = parent.firstElementChild;
  for (const row of rows) {
    const key = keyOf(row);
    if (now.has(key)) continue;
    const element = before.get(key) ?? make(row);
    now.set(key, element);
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
    update(element, row);
  }
  for (const [key, element] of before) if (!now.has(key)) element.remove();
  parent._each = now;
}

/** A titled card. `body` is what it says; `card.state(...)` says instead why there is nothing. */
export function card(id, title, note, ...body) {
  const said = h("p", { class: "quiet empty" }, "Loading…");
  const subtitle = h("p", { class: "quiet" }, note ?? "");
  const inside = h("div", { class: "body", hidden: true }, ...body);
  const element = h(
    "section", { class: "card", id, "aria-labelledby": `${id}-title`, "aria-busy": "true" },
    h("header", {}, h("h2", { id: `${id}-title` }, title), subtitle), said, inside,
  );
  return {
    element,
    note: (words) => text(subtitle, words),
    title: (words) => text(element.querySelector("h2"), words),
    /** null: there is something to show. */
    state(nothing) {
      attribute(element, "aria-busy", null);
      text(said, nothing ?? "");
      show(said, nothing != null);
      show(inside, nothing == null);
    },
  };
}

/** A table whose first column heads its rows. Columns: {name, title, class?, hidden?: title for screen readers only}. */
export function table(caption, columns) {
  const body = h("tbody");
  const heads = columns.map((column) =>
    h("th", { scope: "col", class: column.class ?? "" }, column.unseen ? h("span", { class: "unseen" }, column.title) : column.title),
  );
  const element = h(
    "table", {}, h("caption", { class: "unseen" }, caption), h("thead", {}, h("tr", {}, ...heads)), body,
  );
  const make = () =>
    h("tr", {}, ...columns.map((column, n) => h(n === 0 ? "th" : "td", { class: column.class ?? "", scope: n === 0 ? "row" : null })));
  return {
    element,
    /** Rows of cells by key: texts, or functions that are given the cell. */
    rows(found) {
      each(body, found, (row) => row.key, make, (line, row) => {
        row.cells.forEach((cell, n) => (typeof cell === "function" ? cell(line.cells[n]) : text(line.cells[n], cell)));
        attribute(line, "data-key", row.key);
      });
    },
  };
}

/** A cell with a bar in it, as long as its share of the largest. */
export const bar = (share) => (cell) => {
  const inner = cell.firstElementChild ?? cell.appendChild(h("span", { class: "bar", "aria-hidden": "true" }));
  const width = `${Math.max(0, Math.min(1, share || 0)) * 100}%`;
  if (inner.style.width !== width) inner.style.width = width;
};

/** A cell with a link in it. */
export const link = (words, href) => (cell) => {
  const inner = cell.firstElementChild ?? cell.appendChild(h("a", {}));
  text(inner, words);
  attribute(inner, "href", href);
};
