// The shop: what is sold, by what and by whom, what draws attention, and what needs it.

import { bar, card, h, link, table, text } from "./dom.js";
import { NONE, count, decimal, money, share, time, when } from "./format.js";
import { chart } from "./chart.js";
import { get } from "./live.js";
import { recommended } from "./recommended.js";

const HOUR = 3_600_000;
const DAY = 24 * HOUR;

/** What the page reads, of what the server has: a view's name here, its endpoint, its query. */
const VIEWS = [
  ["minutes", "/api/sales", "by=total"],
  ["total", "/api/sales/top", "by=total&window=1h"],
  ["category", "/api/sales/top", "by=category&window=1h&n=10"],
  ["region", "/api/sales/top", "by=region&window=1h&n=10"],
  ["product", "/api/sales/top", "by=product&window=1h&n=10"],
  ["funnel", "/api/funnel", "hours=24"],
  ["trendingProducts", "/api/trending", "kind=products&n=8"],
  ["trendingSearches", "/api/trending", "kind=searches&n=8"],
  ["alerts", "/api/alerts", "n=6"],
  ["carts", "/api/carts/abandoned", "n=6"],
];

export function shop({ endpoints, currency }) {
  const wanted = VIEWS.filter(([, endpoint]) => endpoints.includes(endpoint));
  const cash = money(currency);
  const sections = [];
  const add = (names, make) => {
    if (names.every((name) => wanted.some(([one]) => one === name))) sections.push({ names, ...make(cash) });
  };
  add(["minutes", "total"], sales);
  add(["category"], (cash) => ranking("category", "By category", "Category", cash));
  add(["region"], (cash) => ranking("region", "By region", "Region", cash));
  add(["product"], (cash) => ranking("product", "Top products", "Product", cash, product));
  add(["funnel"], funnel);
  add(["trendingProducts"], () => trending("trendingProducts", "Trending products", "Product", product));
  add(["trendingSearches"], () => trending("trendingSearches", "Trending searches", "Search", (key) => key));
  const best = { product: null };
  if (endpoints.includes("/api/recommendations/products/{id}")) sections.push({ names: [], ...recommended(best) });
  add(["alerts"], alerts);
  add(["carts"], carts);
  const element = h("div", { class: "grid" }, ...sections.flatMap((section) => section.elements));
  if (!sections.length) element.append(h("p", { class: "notice" }, "The topologies that this server serves have no views that this page knows. All there is: ", h("a", { href: "api" }, "/api")));
  const query = wanted.map(([, endpoint, query]) => `view=${encodeURIComponent(`${endpoint}?${query}`)}`).join("&");
  return {
    element,
    path: wanted.length ? `/api/batch?${query}` : null,
    update({ views }) {
      const parts = Object.fromEntries(wanted.map(([name], n) => [name, views[n]]));
      best.product = parts.product?.body.rows?.[0]?.key ?? null;
      for (const { names, update } of sections) {
        const failed = names.map((name) => parts[name]).find((part) => part.status !== 200);
        update(failed ? null : Object.fromEntries(names.map((name) => [name, parts[name].body])), failed?.body.detail);
      }
    },
    pause: () => sections.forEach((section) => section.pause?.()),
    resume: () => sections.forEach((section) => section.resume?.()),
  };
}

export const product = (key) => (/^\d+$/.test(key) ? `Product ${key}` : key);
const productLink = (key) => link(product(key), `#shop&product=${encodeURIComponent(key)}`);
const userLink = (key) => link(`Customer ${key}`, `#shop&user=${encodeURIComponent(key)}`);

function figure(id, name, large = false) {
  const value = h("output", { id, class: "value" }, NONE);
  const against = h("p", { class: "against" }, "\u00a0");
  const element = h("div", { class: large ? "figure large" : "figure" }, h("h3", {}, name), value, against);
  element.setAttribute("aria-live", "off");
  return {
    element,
    update(words, now, then, than) {
      text(value, words);
      value.style.setProperty("--characters", Math.max(4, words.length)); // as large as there is room
      const change = then > 0 && now != null ? now / then - 1 : null;
      against.dataset.trend = change == null ? "" : change >= 0 ? "up" : "down";
      if (change == null) text(against, "\u00a0");
      else if (change > 9) text(against, `×${count(now / then)} of ${than}`);
      else text(against, `${change >= 0 ? "▲" : "▼"} ${share(Math.abs(change))} ${change >= 0 ? "above" : "below"} ${than}`);
    },
  };
}

function sales(cash) {
  const revenue = figure("revenue", "Revenue", true);
  const orders = figure("orders", "Orders");
  const customers = figure("customers", "Customers");
  const average = figure("average", "Per order");
  const figures = card("now", "The last hour", "", h("div", { class: "figures" }, revenue.element, orders.element, customers.element, average.element));
  const lines = chart("revenue-chart");
  const minutes = card("minutes", "Revenue per minute", "", lines.element);
  const past = past_hours(() => update(...last));
  let last = null;

  function update(found, problem) {
    last = [found, problem];
    const rows = found?.minutes.rows ?? [];
    const nothing = problem ?? (rows.length ? null : "No orders yet. As soon as the first one is counted it shows here.");
    figures.state(nothing);
    minutes.state(nothing);
    if (nothing) return;
    const step = found.minutes.window_s * 1000;
    const end = found.total.endMs;
    const start = end - HOUR;
    past.look(rows, start, end);
    const now = new Map(rows.map((row) => [row.startMs, row]));
    const over = found.minutes.freshness.watermarkMs ?? 0;
    const points = [];
    for (let at = start - (start % step); at < end; at += step) {
      const row = now.get(at);
      points.push({ at, value: row?.net ?? (at >= rows[0].startMs ? 0 : null), before: past.row(at)?.net ?? null, over: at + step <= over });
    }
    const than = past.name;
    const latest = points.findLast((point) => point.over && point.value != null);
    lines.draw({
      points, format: cash.full, short: cash.short, time,
      names: { now: "now", before: than },
      caption: "Revenue per minute, newest first",
      says: `Revenue per minute from ${time(start)} to ${time(end)}${latest ? `; ${cash.full(latest.value)} in the last complete minute` : ""}${than ? `; behind it ${than}` : ""}. All values are in the table below.`,
    });
    minutes.note(`${time(start)} to ${time(end)}, net of cancellations and refunds`);
    figures.note(`${time(start)} to ${time(end)}`);
    const total = found.total.rows[0];
    // only minutes that are over, and only if there are all of them to compare with
    const both = points.filter((point) => point.over && point.value != null);
    const fair = both.length > 0 && both.every((point) => point.before != null);
    const sum = (name) => (fair ? both.reduce((all, point) => all + point[name], 0) : null);
    const then = past.total;
    revenue.update(cash.full(total?.net), sum("value"), sum("before"), than);
    orders.update(count(total?.orders), total?.orders, fair ? then?.orders : null, than);
    customers.update(count(total?.customers), total?.customers, fair ? then?.customers : null, than);
    const each_ = (row) => (row?.orders ? row.placed / row.orders : null);
    average.update(cash.full(each_(total) && Math.round(each_(total))), each_(total), fair ? each_(then) : null, than);
  }

  return { elements: [figures.element, minutes.element], update };
}

/** The same hours yesterday, or the hour before where there is no yesterday; asked for once, and as time goes on. */
function past_hours(changed) {
  const rows = new Map();
  let shift = null, first = null, until = 0, asked = null, busy = false;
  const found = { name: null, total: null, row };

  /** The row that a minute is compared with; one in which nothing was sold has none. */
  function row(at) {
    if (shift == null) return null;
    return rows.get(at - shift) ?? (at - shift >= first && at < until ? { net: 0 } : null);
  }

  /** How much of the hour there was then. */
  async function read(back, start, end) {
    const answer = await get(`/api/sales?by=total&from=${start - back}&to=${end - back}`);
    for (const one of answer.rows) rows.set(one.startMs, one);
    if (!answer.rows.length) return 0;
    first = answer.rows[0].startMs;
    return answer.rows.at(-1).endMs - first;
  }

  async function ask(start, end) {
    if (shift == null || end > until) {
      const ahead = end + HOUR / 2;
      // a third of an hour is not yet a yesterday to compare with
      shift = (await read(DAY, start, ahead)) >= HOUR / 3 ? DAY : (await read(HOUR, start, end)) ? HOUR : null;
      found.name = shift === DAY ? "yesterday" : shift === HOUR ? "the hour before" : null;
      until = shift === DAY ? ahead : end + HOUR;
    }
    if (shift != null) found.total = (await get(`/api/sales/top?by=total&window=1h&to=${end - shift}`)).rows[0] ?? null;
    for (const at of rows.keys()) if (at < start - DAY - HOUR) rows.delete(at);
  }

  found.look = (live, start, end) => {
    // what was shown live an hour ago is the hour before
    for (const one of live) rows.set(one.startMs, one);
    if (busy || end === asked) return;
    busy = true;
    ask(start, end).then(
      () => { asked = end; busy = false; changed(); },
      () => setTimeout(() => { busy = false; }, 5000),
    );
  };
  return found;
}

function ranking(name, title, head, cash, naming) {
  const rows = table(`${title}: revenue and orders of the last hour`, [
    { title: head }, { title: "Share", class: "bars", unseen: true }, { title: "Revenue", class: "number" }, { title: "Orders", class: "number minor" },
  ]);
  const box = card(name, title, "Last hour", rows.element);
  return {
    elements: [box.element],
    update(found, problem) {
      const listed = found?.[name].rows ?? [];
      box.state(problem ?? (listed.length ? null : "Nothing was sold in this hour yet."));
      const most = Math.max(1, ...listed.map((row) => row.net));
      rows.rows(listed.map((row) => ({
        key: row.key,
        cells: [naming ? productLink(row.key) : row.key, bar(row.net / most), cash.full(row.net), count(row.orders)],
      })));
    },
  };
}

const STEPS = { viewed: "Looked at a product", carted: "Put it into the cart", checkouts: "Went to the checkout", ordered: "Ordered", paid: "Paid" };

function funnel() {
  const rows = table("Customers at each step of the last 24 hours", [
    { title: "Step" }, { title: "Share", class: "bars", unseen: true }, { title: "Customers", class: "number" }, { title: "Of those before", class: "number" },
  ]);
  const box = card("funnel", "From a look to a paid order", "Customers, last 24 hours", rows.element);
  return {
    elements: [box.element],
    update(found, problem) {
      const steps = found?.funnel.total ?? [];
      box.state(problem ?? (steps.some((step) => step.users) ? null : "Nobody was in the shop yet."));
      const most = Math.max(1, ...steps.map((step) => step.users));
      rows.rows(steps.map((step) => ({
        key: step.step,
        cells: [STEPS[step.step] ?? step.step, bar(step.users / most), count(step.users), share(step.from_previous)],
      })));
    },
  };
}

function trending(name, title, head, naming) {
  const rows = table(`${title}: how many times as many customers as usual`, [
    { title: head }, { title: "More customers than usual", class: "bars", unseen: true }, { title: "Times as usual", class: "number" },
  ]);
  const box = card(name, title, "Against what is usual for it", rows.element);
  return {
    elements: [box.element],
    update(found, problem) {
      const listed = found?.[name].rows ?? [];
      box.state(problem ?? (listed.length ? null : "Nothing draws more attention than usual."));
      const more = (row) => Math.max(0, row.users - row.expected);
      const most = Math.max(1, ...listed.map(more));
      rows.rows(listed.map((row) => ({
        key: row.key,
        cells: [naming === product ? productLink(row.key) : naming(row.key), bar(more(row) / most), `×${decimal(row.lift)}`],
      })));
    },
  };
}

function alerts(cash) {
  const rows = table("Customers with more orders or more money than the limit", [
    { title: "Customer" }, { title: "What" }, { title: "When", class: "number" },
  ]);
  const box = card("alerts", "Alerts", "Unusually much by one customer", rows.element);
  return {
    elements: [box.element],
    update(found, problem) {
      const listed = found?.alerts.rows ?? [];
      box.state(problem ?? (listed.length ? null : "None. All is as usual."));
      rows.rows(listed.map((row) => ({
        key: `${row.userId} ${row.orderId}`,
        cells: [
          userLink(row.userId),
          `${row.reason === "amount" ? cash.full(row.amount) : `${count(row.orders)} orders`}${row.final ? "" : ", provisional"}`,
          when(row.occurredAt),
        ],
      })));
    },
  };
}

function carts() {
  const rows = table("Carts that were left, newest first", [
    { title: "Customer" }, { title: "In the cart" }, { title: "Last touched", class: "number" },
  ]);
  const box = card("carts", "Abandoned carts", "Newest first", rows.element);
  return {
    elements: [box.element],
    update(found, problem) {
      const listed = found?.carts.rows ?? [];
      box.state(problem ?? (listed.length ? null : "No cart was left yet: one is after an hour without a change."));
      rows.rows(listed.map((row) => ({
        key: `${row.userId} ${row.since}`,
        cells: [userLink(row.userId), `${count(row.items.length)} ${row.items.length === 1 ? "product" : "products"}`, when(row.lastChange)],
      })));
    },
  };
}
