// Recommendations for whom one chooses, with their reasons. Chosen by the form or by a link: #shop&user=7.

import { bar, card, h, link, table, text } from "./dom.js";
import { share } from "./format.js";
import { Live } from "./live.js";

const DID = { viewed: "looked at", carted: "put into the cart", bought: "bought", removed: "took out of the cart" };
const named = (key) => (/^\d+$/.test(key) ? `Product ${key}` : key);

export function choice(hash = location.hash) {
  const asked = new URLSearchParams(hash.replace(/^#[^&]*&?/, ""));
  if (asked.get("user")) return { kind: "user", id: asked.get("user") };
  if (asked.get("product")) return { kind: "product", id: asked.get("product") };
  return null;
}

export function recommended(best) {
  const id = h("input", { id: "for-id", name: "id", required: true, autocomplete: "off", spellcheck: "false", maxlength: "200", size: "8" });
  const kind = h("select", { id: "for-kind", name: "kind" }, h("option", { value: "user" }, "Customer"), h("option", { value: "product" }, "Product"));
  const form = h(
    "form", { class: "choose" },
    h("label", { for: "for-kind", class: "unseen" }, "Recommendations for a customer or a product"), kind,
    h("label", { for: "for-id", class: "unseen" }, "Number"), id, h("button", {}, "Show"),
  );
  const rows = table("Recommended products and why", [{ title: "Product" }, { title: "Score", class: "bars", unseen: true }, { title: "Why" }]);
  const said = h("p", { class: "quiet" });
  const box = card("recommended", "Recommendations", "", form, said, rows.element);
  let live = null, shown = null;

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    location.hash = `#shop&${kind.value}=${encodeURIComponent(id.value.trim())}`;
  });

  function follow(chosen) {
    const key = chosen && `${chosen.kind} ${chosen.id}`;
    if (key === shown || !chosen) return;
    shown = key;
    live?.stop();
    kind.value = chosen.kind;
    id.value = chosen.id;
    rows.rows([]);
    text(said, "Loading…");
    const at = encodeURIComponent(chosen.id);
    const views = chosen.kind === "user"
      ? [`/api/recommendations/users/${at}?n=8`]
      : ["bought", "seen"].map((by) => `/api/recommendations/products/${at}?by=${by}&n=4`);
    live = new Live(`/api/batch?${views.map((view) => `view=${encodeURIComponent(view)}`).join("&")}`, {
      onData: ({ views }) => (chosen.kind === "user" ? ofUser : ofProduct)(views, chosen.id),
      onState: (state, error) => state === "refused" && text(said, error.message),
    });
    live.start();
  }

  function ofUser([part], user) {
    if (part.status !== 200) return nothing(part);
    const { rows: found, known, favourite } = part.body;
    text(said, known ? `For customer ${user}${favourite ? `, who likes ${favourite}` : ""}` : `Nothing is known of customer ${user} yet: what is trending`);
    const most = Math.max(1e-9, ...found.map((row) => row.score));
    rows.rows(found.map((row) => ({
      key: row.productId,
      cells: [link(named(row.productId), `#shop&product=${encodeURIComponent(row.productId)}`), bar(row.score / most),
        row.because ? `${row.relation} ${named(row.because)}, which the customer ${DID[row.action] ?? row.action}` : row.reason],
    })));
  }

  function ofProduct(parts, key) {
    const good = parts.filter((part) => part.status === 200);
    if (!good.length) return nothing(parts[0]);
    text(said, `With ${named(key)}${key === best.product && choice() == null ? ", which sells best now" : ""}`);
    const found = good.flatMap((part) => part.body.rows.map((row) => ({ ...row, by: part.body.by })));
    const most = Math.max(1e-9, ...found.map((row) => row.score));
    rows.rows(found.map((row) => ({
      key: `${row.by} ${row.productId}`,
      cells: [link(named(row.productId), `#shop&product=${encodeURIComponent(row.productId)}`), bar(row.score / most),
        row.by === "bought" ? `in ${share(row.share)} of its orders` : `in ${share(row.share)} of the visits that looked at it`],
    })));
    if (!found.length) text(said, `Nothing goes with ${named(key)} yet.`);
  }

  function nothing(part) {
    rows.rows([]);
    text(said, part.body.detail);
  }

  const chosen = () => follow(choice());
  addEventListener("hashchange", chosen);
  return {
    elements: [box.element],
    update() {
      box.state(null);
      if (shown == null) follow(choice() ?? (best.product && { kind: "product", id: best.product }));
      if (shown == null) text(said, "Choose a customer or a product.");
    },
    pause() { live?.stop(); },
    resume() { live?.start(); },
  };
}
