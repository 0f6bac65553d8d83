// A line over time, with another one behind it. SVG that is as large as its place, so that its text is never scaled.

import { attribute, each, h, show, table, text } from "./dom.js";

const LEFT = 4, RIGHT = 4, TOP = 14, BOTTOM = 26, AXIS = 64;

/** Round steps from 0 to at least `most`: [0, step, 2 step, ...]. */
export function ticks(most, wanted = 4) {
  const rough = Math.max(most, 1) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= rough);
  const count = Math.ceil(Math.max(most, 1) / step);
  return Array.from({ length: count + 1 }, (_, n) => n * step);
}

/** A chart for `draw({points, format, short, time, names, caption})`; a point: {at, value, before, over}. */
export function chart(id) {
  const grid = h("g", { class: "grid" });
  const before = h("path", { class: "before" });
  const area = h("path", { class: "area" });
  const line = h("path", { class: "now" });
  const open = h("path", { class: "now open" });
  const last = h("circle", { class: "last", r: 5 });
  const cross = h("line", { class: "cross" });
  const title = h("title", { id: `${id}-says` });
  const svg = h("svg", { role: "img", "aria-labelledby": `${id}-says` }, title, grid, before, area, cross, line, open, last);
  const tip = h("p", { class: "tip", "aria-hidden": "true", hidden: true });
  const legend = h("p", { class: "legend", "aria-hidden": "true" });
  const nowName = h("span"), beforeName = h("span");
  legend.append(h("span", { class: "key now" }), nowName, h("span", { class: "key before" }), beforeName);
  const numbers = table("", [
    { title: "Time" }, { title: "", class: "number" }, { title: "", class: "number" },
  ]);
  const details = h("details", { ontoggle: () => fill() }, h("summary", {}, "The same as a table"), h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of the chart" }, numbers.element));
  const plot = h("div", { class: "plot" }, svg, tip);
  const element = h("div", { class: "chart" }, legend, plot, details);
  let given = null, size = { width: 0, height: 0 }, pointed = null;

  function fill() {
    if (!details.open || !given) return;
    const heads = numbers.element.tHead.rows[0].cells;
    text(heads[1], given.names.now);
    text(heads[2], given.names.before ?? "Before");
    text(numbers.element.caption, given.caption);
    numbers.rows(given.points.toReversed().map((point) => ({
      key: point.at, cells: [given.time(point.at), given.format(point.value), given.format(point.before)],
    })));
  }

  const path = (points) => points.map(([x, y], n) => `${n ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

  /** Runs of points without a gap. */
  function runs(points) {
    const found = [];
    let run = [];
    for (const point of points) {
      if (point) run.push(point);
      else if (run.length) { found.push(run); run = []; }
    }
    return run.length ? [...found, run] : found;
  }

  function draw(next = given) {
    if (!next) return;
    given = next;
    const { width, height } = size;
    if (!width || !height) return;
    const { points } = given;
    const marks = ticks(Math.max(0, ...points.map((p) => p.value ?? 0), ...points.map((p) => p.before ?? 0)), height < 220 ? 3 : 4);
    const top = marks.at(-1);
    const right = width - RIGHT - AXIS;
    const x = (n) => LEFT + ((right - LEFT) * n) / Math.max(1, points.length - 1);
    const y = (value) => height - BOTTOM - ((height - BOTTOM - TOP) * Math.max(0, value)) / top;
    attribute(svg, "viewBox", `0 0 ${width} ${height}`);
    const every = width < 480 ? 20 : width < 1000 ? 10 : 5;
    const labels = points.map((point, n) => ({ point, n }))
      .filter(({ point, n }) => (point.at / 60000) % every === 0 && x(n) > 30); // there must be room for its words
    each(grid,
      [...marks.map((mark) => ({ key: `y${mark}`, mark })), ...labels.map(({ point, n }) => ({ key: `x${point.at}`, point, n }))],
      (row) => row.key,
      (row) => h("g", {}, row.mark != null && h("line"), h("text")),
      (group, row) => {
        const words = group.lastElementChild;
        if (row.mark == null) {
          attribute(words, "x", x(row.n));
          attribute(words, "y", height - 6);
          attribute(words, "text-anchor", "middle");
          text(words, given.time(row.point.at));
          return;
        }
        const rule = group.firstElementChild;
        for (const [name, value] of [["x1", LEFT], ["x2", right], ["y1", y(row.mark)], ["y2", y(row.mark)]]) attribute(rule, name, value);
        attribute(words, "x", right + 10);
        attribute(words, "y", y(row.mark) + 5);
        text(words, given.short(row.mark));
      });
    const place = (name) => points.map((p, n) => (p[name] == null ? null : [x(n), y(p[name])]));
    attribute(before, "d", runs(place("before")).map(path).join("") || null);
    const complete = runs(points.map((p, n) => (p.value == null || !p.over ? null : [x(n), y(p.value)])));
    attribute(line, "d", complete.map(path).join("") || null);
    attribute(area, "d", complete.map((run) => `${path(run)}L${run.at(-1)[0]} ${y(0)}L${run[0][0]} ${y(0)}Z`).join("") || null);
    // minutes that may still grow are dotted, and the newest is a point by itself: it always begins at nothing
    const end = points.findLastIndex((p) => p.value != null);
    const closed = points.findLastIndex((p) => p.over && p.value != null);
    const tail = closed < end ? place("value").slice(Math.max(closed, 0), end).filter(Boolean) : [];
    attribute(open, "d", tail.length > 1 ? path(tail) : null);
    attribute(last, "visibility", end < 0 ? "hidden" : null);
    if (end >= 0) { attribute(last, "cx", x(end)); attribute(last, "cy", y(points[end].value)); }
    text(nowName, given.names.now);
    text(beforeName, given.names.before ?? "");
    show(legend.querySelector(".key.before"), given.names.before != null);
    text(title, given.says);
    point(x, y);
    fill();
  }

  function point(x, y) {
    const n = pointed;
    const at = n == null ? null : given.points[n];
    show(tip, at != null);
    attribute(cross, "visibility", at == null ? "hidden" : null);
    if (at == null) return;
    for (const [name, value] of [["x1", x(n)], ["x2", x(n)], ["y1", TOP], ["y2", size.height - BOTTOM]]) attribute(cross, name, value);
    const was = at.before == null ? "" : `\n${given.format(at.before)} ${given.names.before}`;
    text(tip, `${given.time(at.at)}  ${given.format(at.value)}${at.over ? "" : ", so far"}${was}`);
    const left = Math.max(0, Math.min(size.width - tip.offsetWidth, x(n) + 12));
    tip.style.left = `${left}px`;
  }

  svg.addEventListener("pointermove", (event) => {
    if (!given?.points.length) return;
    const share = (event.offsetX - LEFT) / (size.width - RIGHT - AXIS - LEFT);
    pointed = Math.max(0, Math.min(given.points.length - 1, Math.round(share * (given.points.length - 1))));
    draw();
  });
  svg.addEventListener("pointerleave", () => { pointed = null; draw(); });
  new ResizeObserver(([entry]) => {
    size = { width: Math.round(entry.contentRect.width), height: Math.round(entry.contentRect.height) };
    draw();
  }).observe(plot);
  return { element, draw };
}
