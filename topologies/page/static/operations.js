// For whom runs it: workers, partitions and who owns them, lag, throughput, what was put aside, freshness, the audit.
// Asked for every two seconds while it is looked at: what it tells comes from Kafka's coordinators, not from tables.

import { bar, card, h, show, table, text } from "./dom.js";
import { NONE, compact, count, decimal, span, when } from "./format.js";
import { Refused, get } from "./live.js";

const EVERY_MS = 2000;

export function operations(place, { refused }) {
  let looking = false, timer = null, built = null, asking = false, audited = false;

  async function look() {
    clearTimeout(timer);
    if (!looking || asking) return;
    asking = true;
    let pause = EVERY_MS;
    try {
      const found = await get("/api/operations");
      built.update(found);
      built.audit(audited ? await get("/api/audit") : null);
      built.problem(null);
    } catch (error) {
      built.problem(error instanceof Refused ? error.message : "Disconnected. Trying again.");
      if (error instanceof Refused && error.status === 401) {
        pause = null;
        refused(error, "operations", look);
      }
    } finally {
      asking = false;
      if (looking && pause) timer = setTimeout(look, pause);
    }
  }

  return {
    shown(now) {
      looking = now;
      clearTimeout(timer);
      if (!now) return;
      built ??= sections(place);
      look();
    },
    served(endpoints) { audited = endpoints.includes("/api/audit"); },
    pause() { clearTimeout(timer); },
    resume() { if (looking) look(); },
  };
}

/** What may be wider than a phone, and is then scrolled, by keyboard too. */
const scrolled = (label, inner) => h("div", { class: "scroll", tabindex: "0", role: "group", "aria-label": `${label}, table` }, inner);

function sections(place) {
  const problem = h("p", { class: "notice", hidden: true });
  const summary = h("div", { class: "figures" });
  const said = {};
  for (const [name, title] of [["lag", "Records behind"], ["rate", "Records per second"], ["workers", "Workers"], ["late", "Late"], ["dead", "Dead letters"]]) {
    said[name] = h("output", { class: "value", id: `operations-${name}` }, NONE);
    summary.append(h("div", { class: "figure", "aria-live": "off" }, h("h3", {}, title), said[name]));
  }
  const now = card("operations-now", "Now", "", summary);

  const fresh = table("How fresh each topology's tables are", [
    { title: "Topology" }, { title: "Complete as of", class: "number" }, { title: "Behind", class: "number" }, { title: "Per second", class: "number" }, { title: "State" },
  ]);
  const freshness = card("freshness", "Freshness", "What the view server's tables contain", scrolled("Freshness", fresh.element));

  const members = table("Workers by group", [{ title: "Worker" }, { title: "Topology" }, { title: "Host" }, { title: "Partitions", class: "number" }]);
  const workers = card("workers", "Workers", "As their group's coordinator knows them", scrolled("Workers", members.element));

  const owned = table("Partitions, owners, and lag", [
    { title: "Partition" }, { title: "Group" }, { title: "Owner" }, { title: "End", class: "number minor" }, { title: "Committed", class: "number minor" },
    { title: "Behind", class: "number" }, { title: "Throughput", class: "bars", unseen: true }, { title: "Per second", class: "number" },
  ]);
  const partitions = card("partitions", "Partitions", "Behind: records that the tables do not contain", scrolled("Partitions", owned.element));

  const aside = table("Records put aside, by source", [{ title: "Source" }, { title: "Late", class: "number" }, { title: "Dead letters", class: "number" }]);
  const letters = card("letters", "Put aside", "By each topology that reads a source", aside.element);

  const differing = table("Cells that the audit found to differ", [
    { title: "Table" }, { title: "Window" }, { title: "Key" }, { title: "Stored" }, { title: "Recounted" },
  ]);
  const verdict = h("p", { class: "verdict" });
  const extent = h("p", { class: "quiet" });
  const audit = card("audit", "Audit", "Closed windows, counted again from the log", verdict, extent, scrolled("What differs", differing.element));
  audit.element.hidden = true;

  place.replaceChildren(problem, h("div", { class: "grid" }, now.element, freshness.element, workers.element, letters.element, audit.element, partitions.element));

  return {
    problem(words) { text(problem, words); show(problem, words != null); },
    update({ topologies, letters: kept }) {
      const sum = (rows, of) => rows.reduce((all, one) => (of(one) == null || all == null ? null : all + of(one)), 0);
      const all = (of) => sum(topologies, of);
      text(said.lag, count(all((one) => one.freshness.lagTotal)));
      text(said.rate, compact(all((one) => one.perSecond)));
      text(said.workers, count(all((one) => one.members?.length)));
      text(said.late, compact(sum(kept, (one) => one.late)));
      text(said.dead, compact(sum(kept, (one) => one.deadLetters)));
      now.state(null);
      fresh.rows(topologies.map((one) => ({
        key: one.name,
        cells: [one.name, one.freshness.age_s == null ? "not yet" : `${span(one.freshness.age_s)} ago`, count(one.freshness.lagTotal), decimal(one.perSecond),
          !one.freshness.connected ? "Kafka does not answer" : one.freshness.caughtUp ? one.state ?? one.problem ?? NONE : "catching up"],
      })));
      freshness.state(null);
      const found = topologies.flatMap((one) => (one.members ?? []).map((member) => ({ ...member, topology: one.name })));
      members.rows(found.map((one) => ({ key: `${one.topology} ${one.member}`, cells: [one.name, one.topology, one.host, count(one.partitions)] })));
      workers.state(found.length ? null : topologies.find((one) => one.problem)?.problem ?? "No worker is in its group. Start one: millrace worker");
      const rows = topologies.flatMap((one) => one.partitions.map((row) => ({ ...row, topology: one.name, asked: one.members != null })));
      const fastest = Math.max(1, ...rows.map((row) => row.perSecond ?? 0));
      owned.rows(rows.map((row) => ({
        key: `${row.topology} ${row.topic} ${row.partition}`,
        cells: [`${row.topic} ${row.partition}`, row.topology, row.owner ?? (row.asked ? "nobody" : NONE), count(row.end), count(row.committed), count(row.lag), bar(row.perSecond / fastest), decimal(row.perSecond)],
      })));
      partitions.state(rows.length ? null : "Not known yet.");
      aside.rows(kept.map((one) => ({ key: one.topic, cells: [one.topic, count(one.late), count(one.deadLetters)] })));
      letters.state(kept.length ? null : "Nothing.");
    },
    audit(found) {
      show(audit.element, found != null);
      if (!found) return;
      audit.state(found.checked ? null : found.lastError ?? "No window was counted again yet: it begins with those that are closed.");
      audit.note(found.lastAt ? `Last ${when(found.lastAt)}` : "Closed windows, counted again from the log");
      const differ = found.differ ?? [];
      const wrong = found.differing ?? differ.length;
      verdict.dataset.good = wrong === 0;
      text(verdict, wrong ? `${count(wrong)} of ${count(found.checked)} differ` : `${count(found.agree)} of ${count(found.checked)} agree`);
      const unknown = found.unknown ? `; ${count(found.unknown)} cannot be: the log does not have all of their events any more` : "";
      text(extent, `Numbers of ${count(found.windows)} closed windows, counted again from ${count(found.records)} records${unknown}`);
      show(differing.element, differ.length > 0);
      differing.rows(differ.slice(0, 20).map((row) => ({
        key: `${row.table} ${row.window} ${row.key} ${row.partition}`,
        cells: [row.table, String(row.window), row.key, JSON.stringify(row.stored), JSON.stringify(row.recounted)],
      })));
    },
  };
}
