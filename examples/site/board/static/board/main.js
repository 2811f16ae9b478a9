// Wire the form, the list and the feed together.

import { clock, drawCard, makeCard, poolPid } from "./cards.js";
import { Feed } from "./feed.js";
import { isFinished, load, onChangeElsewhere, update } from "./memory.js";

const TICK_MS = 500; // clocks on the cards
const LIT_MS = 500;
const GONE_AFTER_MS = 12_000; // of being the only one that stays silent
const MOST_CHIPS = 8;
const FIRST_LOOKS = 8; // questions that make most of four web workers show up
const SILENT_MS = 1500; // then the server is asked for a sign of life
const LOST_MS = 3500; // without one

const $ = (id) => document.getElementById(id);
const form = $("start");
const csrfToken = form.elements.csrfmiddlewaretoken.value;

let tasks = load(); // newest first
const cards = new Map();
const HANDLERS = { onAgain: runAgain, onCancel: cancelTask, onRemove: removeTask };

const feed = new Feed("events/", {
  task: learn,
  missing: ({ id }) => change(id, (task) => (task.isMissing = true)),
  heard,
  state: showLink,
  turnEnded: askForUnfinished,
});

// What comes in

function learn(facts) {
  shine("web-workers", String(facts.web_pid), "web");
  if (facts.worker) {
    const chip = shine("pool-workers", poolPid(facts.worker), "pool");
    if (facts.error?.type === "WorkerLost") chip.dataset.gone = "";
  }
  change(facts.id, (task) => {
    task.facts = facts;
    task.answerers = [...task.answerers.filter((pid) => pid !== facts.web_pid), facts.web_pid];
  });
}

function change(id, edit) {
  const before = tasks.find((one) => one.id === id)?.facts?.status;
  tasks = update(tasks, (all) => {
    all.filter((one) => one.id === id).forEach(edit);
    return all;
  });
  const task = tasks.find((one) => one.id === id);
  if (task) {
    const after = task.isMissing ? "no longer known" : task.facts.status.toLowerCase();
    if (task.isMissing || task.facts.status !== before) announce(`${task.title}: ${after}`);
  }
  draw();
}

// Only changes of status are read out; a progress bar that talks is a nuisance.
let unsaid = [];
function announce(text) {
  unsaid.push(text);
  if (unsaid.length === 1) {
    setTimeout(() => {
      $("news").textContent = unsaid.join(". ");
      unsaid = [];
    }, 300);
  }
}

// What goes out

async function start(fields) {
  const title = form.querySelector(`[name="kind"][value="${fields.get("kind")}"]`).dataset.title;
  await post(form.action, title, fields);
}

async function post(address, title, fields) {
  const response = await fetch(address, {
    method: "POST",
    body: fields,
    headers: { "X-CSRFToken": csrfToken },
  });
  if (!response.headers.get("Content-Type")?.startsWith("application/json")) {
    throw new Error(`The server answered with status ${response.status}.`);
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ?? Object.values(answer.errors).flat().join(" "));
  shine("web-workers", String(answer.web_pid), "web");
  heard();
  const task = { id: answer.id, title, enqueuer: answer.web_pid, answerers: [], facts: null };
  tasks = update(tasks, (all) => [task, ...all]);
  draw();
  askForUnfinished();
}

async function runAgain(task) {
  const button = cards.get(task.id).querySelector(".again");
  button.setAttribute("aria-busy", "true");
  try {
    await post(`jobs/${encodeURIComponent(task.id)}/again/`, task.title);
  } catch (error) {
    complain(error);
  } finally {
    button.removeAttribute("aria-busy");
  }
}

// How the task ends comes with the events: it may be faster than this request.
async function cancelTask(task) {
  const button = cards.get(task.id).querySelector(".cancel");
  button.setAttribute("aria-busy", "true");
  try {
    const response = await fetch(`jobs/${encodeURIComponent(task.id)}/cancel/`, {
      method: "POST",
      headers: { "X-CSRFToken": csrfToken },
    });
    if (!response.ok) throw new Error(`the server answered with status ${response.status}`);
  } catch (error) {
    complain(new Error(`${task.title} could not be cancelled: ${error.message}`));
  } finally {
    button.removeAttribute("aria-busy");
  }
}

async function submit(kinds) {
  const buttons = form.querySelectorAll("button");
  buttons.forEach((button) => button.setAttribute("aria-busy", "true"));
  $("form-error").hidden = true;
  try {
    for (const kind of kinds) {
      const fields = new FormData(form);
      fields.set("kind", kind);
      await start(fields);
    }
  } catch (error) {
    complain(error);
  } finally {
    buttons.forEach((button) => button.removeAttribute("aria-busy"));
  }
}

function complain(error) {
  $("form-error").textContent = error.message;
  $("form-error").hidden = false;
}

function askForUnfinished() {
  feed.want(tasks.filter((task) => !isFinished(task)).map((task) => task.id));
}

// What is seen

function draw() {
  const list = $("list");
  for (const [id, card] of cards) {
    if (!tasks.some((task) => task.id === id)) {
      card.remove();
      cards.delete(id);
    }
  }
  tasks.forEach((task, index) => {
    if (!cards.has(task.id)) cards.set(task.id, makeCard(task, HANDLERS));
    const card = cards.get(task.id);
    drawCard(card, task);
    if (list.children[index] !== card) list.insertBefore(card, list.children[index] ?? null);
  });
  $("empty").hidden = tasks.length > 0;
  $("clear").hidden = !tasks.some(isFinished);
}

function removeTask(task) {
  const next = cards.get(task.id).nextElementSibling ?? cards.get(task.id).previousElementSibling;
  forget((one) => one.id === task.id);
  (next?.querySelector(".remove") ?? $("tasks")).focus();
}

function forget(isUnwanted) {
  tasks = update(tasks, (all) => all.filter((task) => !isUnwanted(task)));
  draw();
  askForUnfinished();
}

// Whether the server is there. What the feed says of itself counts only while it is.

let heardAt = Date.now();
let feedState = "idle";
let isAsking = false;

function heard() {
  heardAt = Date.now();
  if (clock.stoppedAt !== null) showServer(true);
}

function showLink(state) {
  feedState = state;
  if (clock.stoppedAt === null) say(state);
}

function showServer(isThere) {
  clock.stoppedAt = isThere ? null : heardAt;
  $("tasks").classList.toggle("lost", !isThere);
  say(isThere ? feedState : "lost");
  announce(isThere ? "The server is back" : "The server cannot be reached");
}

function say(state) {
  const link = $("link");
  link.dataset.state = state;
  link.textContent = { live: "Live", idle: "Idle", lost: "Server not reachable, trying again" }[state];
}

function watchServer() {
  if (document.hidden) {
    heardAt = Date.now(); // a hidden tab asks nothing
    return;
  }
  const silentFor = Date.now() - heardAt;
  if (silentFor > SILENT_MS && !isAsking) {
    isAsking = true;
    askWho().catch(() => {}).finally(() => (isAsking = false));
  }
  if (silentFor > LOST_MS && clock.stoppedAt === null) showServer(false);
}

async function askWho() {
  const response = await fetch("whoami/", { signal: AbortSignal.timeout(SILENT_MS) });
  const { web_pid } = await response.json();
  heard();
  shine("web-workers", String(web_pid), "web");
}

// Light up the process that just answered or works; strike through one that seems to be gone.
const seenAt = new Map();
function shine(rowId, pid, kind) {
  const row = $(rowId);
  row.querySelector(".none")?.remove();
  let chip = [...row.children].find((one) => one.textContent === pid);
  if (!chip) {
    chip = document.createElement("span");
    chip.className = "chip";
    chip.textContent = pid;
    row.append(chip);
    if (row.children.length > MOST_CHIPS) row.firstElementChild.remove();
  }
  seenAt.set(chip, Date.now());
  chip.dataset.lit = kind;
  delete chip.dataset.gone;
  setTimeout(() => delete chip.dataset.lit, LIT_MS);
  return chip;
}

function tick() {
  watchServer();
  if (clock.stoppedAt !== null) return;
  const latest = Math.max(0, ...seenAt.values());
  for (const chip of $("web-workers").children) {
    chip.toggleAttribute("data-gone", latest - (seenAt.get(chip) ?? latest) > GONE_AFTER_MS);
  }
  for (const task of tasks) if (!isFinished(task)) drawCard(cards.get(task.id), task);
}

async function lookAround() {
  await Promise.all(Array.from({ length: FIRST_LOOKS }, askWho));
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  submit([new FormData(form).get("kind")]);
});
form.addEventListener("change", showPhrase);
$("one-of-each").addEventListener("click", () => {
  submit([...form.querySelectorAll('[name="kind"]')].map((radio) => radio.value));
});
$("clear").addEventListener("click", () => {
  forget(isFinished);
  $("tasks").focus();
});

function showPhrase() {
  $("phrase-field").hidden = new FormData(form).get("kind") !== "search";
}

for (const id of ["one-of-each", "processes", "link"]) $(id).hidden = false; // they need this script
onChangeElsewhere((all) => {
  tasks = all;
  draw();
  askForUnfinished();
});

showPhrase();
draw();
setInterval(tick, TICK_MS);
askForUnfinished();
lookAround().catch(() => {}); // `watchServer` sees it
