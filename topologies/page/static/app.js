// The page as a whole: what is served, the connection and what it is worth, tabs, theme, token.

import { attribute, h, show, text } from "./dom.js";
import { count, seconds, span } from "./format.js";
import { Live, Refused, get, token } from "./live.js";
import { operations } from "./operations.js";
import { shop } from "./shop.js";

const STALE_S = 5;
const HIDDEN_MS = 30_000;
const $ = (id) => document.getElementById(id);

let page = null; // the shop's sections
let live = null;
let connection = "connecting";
let fresh = null; // {freshness, at}: what the last answer said, and when
const operator = operations($("operations-tab"), { refused });

/* What the numbers are worth, in one word and a few more. */

function standing() {
  if (connection === "token") return ["token", "Token needed"];
  if (connection === "lost") return ["disconnected", fresh ? `Disconnected. Last numbers: ${seconds(fresh.at)}` : "Disconnected. Trying again"];
  if (connection === "refused") return ["disconnected", "The server refuses"];
  if (connection === "connecting" || !fresh) return ["connecting", "Connecting"];
  const { age_s: told, connected, caughtUp, lagTotal } = fresh.freshness;
  const age = told == null ? null : told + (Date.now() - fresh.at) / 1000;
  if (!connected) return ["stale", age == null ? "Kafka does not answer" : `Kafka does not answer. Numbers are ${span(age)} old`];
  if (!caughtUp) return ["stale", lagTotal ? `Catching up, ${count(lagTotal)} records to go` : "Catching up"];
  if (age == null) return ["stale", "Waiting for the workers"];
  if (age > STALE_S) return ["stale", `Stale. Numbers are ${span(age)} old`];
  return ["live", `Live. Complete ${span(age)} ago`];
}

const SAID = { live: "The numbers are live.", stale: "The numbers are stale.", disconnected: "The connection is lost; trying again.", token: "A token is needed." };
let saidKind = null;

function tell() {
  const [kind, words] = standing();
  attribute($("state"), "data-state", kind);
  attribute(document.body, "data-state", kind);
  text($("state-text"), words);
  if (kind !== saidKind) {
    // rarely, and not for what repairs itself within a second
    clearTimeout(tell.timer);
    tell.timer = setTimeout(() => { if (standing()[0] === kind) text($("said"), SAID[kind] ?? ""); }, 1500);
    saidKind = kind;
  }
  const now = new Date();
  text($("clock"), now.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" }));
  attribute($("clock"), "datetime", now.toISOString());
}

/* Token: asked for when the server asks. */

function refused(error, purpose, again) {
  if (error.status !== 401) return;
  text($("ask-title"), `This server asks for a token for ${purpose}`);
  text($("token-said"), token.get(purpose) ? "The server does not take this token." : "");
  $("token-form").onsubmit = (event) => {
    event.preventDefault();
    token.set(purpose, $("token").value.trim());
    $("token").value = "";
    show($("ask"), false);
    again();
  };
  if ($("ask").hidden) {
    show($("ask"), true);
    $("token").focus();
  }
}

/* Start: what does this server have? Then one connection for all of it. */

async function start(tries = 0) {
  try {
    const served = await get("/api");
    operator.served(served.endpoints);
    page = shop(served);
    $("shop-tab").replaceChildren(page.element);
    show($("problem"), false);
    if (!page.path) {
      fresh = { freshness: served.freshness, at: Date.now() };
      connection = "live";
      return tell();
    }
    let due = 0;
    live = new Live(page.path, {
      onData(body) {
        fresh = { freshness: body.freshness, at: Date.now() };
        due ||= requestAnimationFrame(() => { due = 0; page.update(body); tell(); });
      },
      onState(state, error) {
        connection = state;
        tell();
        if (state === "refused") trouble(error);
        if (state === "live") show($("problem"), false);
      },
    });
    live.start();
    visible();
  } catch (error) {
    if (!(error instanceof Refused) && !(error instanceof TypeError) && error.name !== "TimeoutError") throw error;
    connection = error instanceof Refused ? "refused" : "lost";
    if (error instanceof Refused) trouble(error);
    if (connection !== "token") setTimeout(() => start(tries + 1), Math.min(15_000, 500 * 2 ** tries));
  }
  tell();
}

function trouble(error) {
  if (error.status === 401) {
    live?.stop();
    connection = "token";
    refused(error, "reads", () => { connection = "connecting"; if (live) live.start(); else start(); tell(); });
  } else {
    text($("problem"), error.message);
    show($("problem"), true);
  }
  tell();
}

/* A tab that nobody sees gives its connections back, since a browser has six for a server. */

let leaving = null;

function visible() {
  clearTimeout(leaving);
  if (document.hidden) {
    leaving = setTimeout(() => { live?.stop(); page?.pause(); operator.pause(); }, HIDDEN_MS);
  } else if (connection !== "token") {
    live?.start();
    live?.hurry();
    page?.resume();
    operator.resume();
  }
}

document.addEventListener("visibilitychange", visible);
addEventListener("online", () => live?.hurry());

/* Tabs and theme. */

function tab() {
  const chosen = location.hash.split("&")[0] === "#operations" ? "operations" : "shop";
  for (const one of document.querySelectorAll("[data-tab]")) {
    attribute(one, "aria-current", one.dataset.tab === chosen ? "page" : null);
    show($(`${one.dataset.tab}-tab`), one.dataset.tab === chosen);
  }
  operator.shown(chosen === "operations");
  document.title = chosen === "operations" ? "Operations · millrace" : "millrace";
}

function theme() {
  const dark = document.documentElement.dataset.theme === "dark";
  attribute($("theme"), "aria-pressed", dark);
}

$("theme").addEventListener("click", () => {
  const next = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try { localStorage.setItem("theme", next); } catch { /* for this load only */ }
  theme();
});
$("shop-tab").append(h("div", { class: "grid loading" }, ...["wide", "wide", "", "", ""].map((size) => h("div", { class: `card ${size}` }))));
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault(); // the hash says which tab it is
  $("content").focus();
});
addEventListener("hashchange", tab);
tab();
theme();
tell();
setInterval(tell, 1000);
start();
