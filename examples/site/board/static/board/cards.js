// Draw one task as a card, and redraw only what has changed.

import { isFinished } from "./memory.js";

const STATUS = {
  READY: "◌ Ready",
  RUNNING: "▶ Running",
  SUCCESSFUL: "✓ Successful",
  FAILED: "✕ Failed",
};
const OUTCOMES = {
  flaky: (r) => `Successful in attempt ${number(r.attempts)}.`,
  primes: (r) => `${number(r.primes)} primes below ${number(r.below)}; the largest is ${number(r.largest)}.`,
  pi: (r) => `π ≈ ${r.pi.toFixed(6)}, off by ${r.error.toFixed(6)} after ${number(r.points)} points.`,
  search: (r) =>
    `${number(r.hits)} hits in ${number(r.files_with_hits)} of ${number(r.files)} files. ` +
    `Commonest words: ${r.commonest.join(", ")}.`,
};

// It stands still while the server cannot be reached: nobody knows how the tasks are then.
export const clock = {
  stoppedAt: null,
  now() {
    return this.stoppedAt ?? Date.now();
  },
};

const number = (value) => value.toLocaleString("en");
const seconds = (ms) => `${(Math.max(0, ms) / 1000).toFixed(1)} s`;
const at = (iso) => (iso ? Date.parse(iso) : null);

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// Assigning the same text again would restart selections and wake screen readers.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function makeCard(task, { onAgain, onCancel, onRemove }) {
  const card = document.getElementById("card").content.firstElementChild.cloneNode(true);
  const title = card.querySelector("h3");
  title.textContent = task.title;
  title.id = `title-${task.id}`;
  card.querySelector("article").setAttribute("aria-labelledby", title.id);
  card.querySelector("progress").setAttribute("aria-label", `Progress of ${task.title}`);
  const cancel = card.querySelector(".cancel");
  cancel.setAttribute("aria-label", `Cancel ${task.title}`);
  cancel.addEventListener("click", () => onCancel(task));
  const again = card.querySelector(".again");
  again.setAttribute("aria-label", `Run ${task.title} again`);
  again.addEventListener("click", () => onAgain(task));
  const remove = card.querySelector(".remove");
  remove.setAttribute("aria-label", `Remove ${task.title} from this list`);
  remove.addEventListener("click", () => onRemove(task));
  return card;
}

export function drawCard(card, task) {
  const facts = task.facts ?? { status: "READY" };
  card.dataset.status = task.isMissing ? "MISSING" : facts.status;
  write(card.querySelector(".status"), task.isMissing ? "? No longer known" : statusText(facts));
  const cancel = card.querySelector(".cancel");
  const again = card.querySelector(".again");
  const hadFocus = document.activeElement === cancel;
  cancel.hidden = isFinished(task);
  again.hidden = !isFinished(task) || Boolean(task.isMissing);
  if (hadFocus && cancel.hidden) (again.hidden ? card.querySelector(".remove") : again).focus();
  drawProgress(card, task, facts);
  drawFacts(card, task, facts);
  drawOutcome(card, task, facts);
}

const isCancelled = (facts) => facts.error?.type === "TaskCancelled";
const statusText = (facts) => (isCancelled(facts) ? "⊘ Cancelled" : STATUS[facts.status]);

function drawProgress(card, task, facts) {
  const bar = card.querySelector(".bar");
  const progress = facts.progress;
  bar.hidden = task.isMissing || facts.status === "SUCCESSFUL" || (facts.status === "FAILED" && !progress);
  if (bar.hidden) return;
  const meter = bar.querySelector("progress");
  const fraction = progress?.fraction;
  if (facts.status === "RUNNING" && typeof fraction !== "number") {
    meter.removeAttribute("value"); // as much as is known: it runs
  } else {
    meter.value = fraction ?? 0;
  }
  write(bar.querySelector(".message"), progress?.message || waitingText(facts));
  write(bar.querySelector(".percent"), typeof fraction === "number" ? `${Math.floor(fraction * 100)} %` : "");
}

function waitingText(facts) {
  if (facts.status !== "READY") return "";
  const due = at(facts.run_after);
  const left = due ? Math.ceil((due - clock.now()) / 1000) : 0;
  if (left > 0) return `starts in ${left} s`;
  if (facts.error) return `tried again after ${facts.error.type}: ${facts.error.message}`;
  return "waiting for a pool worker";
}

function drawFacts(card, task, facts) {
  const started = at(facts.started_at);
  const ended = at(facts.finished_at) ?? (facts.status === "RUNNING" ? clock.now() : null);
  const waitedUntil = started ?? (facts.status === "READY" && !task.isMissing ? clock.now() : null);
  const enqueued = at(facts.enqueued_at);
  const values = {
    enqueuer: task.enqueuer ? `web ${task.enqueuer}` : "–",
    worker: facts.worker ? `pool ${poolPid(facts.worker)}` : "–",
    answerer: task.answerers.length ? `web ${task.answerers.at(-1)}` : "–",
    answerers: task.answerers.length > 1 ? `one of ${task.answerers.length} so far` : "",
    waited: enqueued && waitedUntil ? seconds(waitedUntil - enqueued) : "–",
    ran: started && ended ? seconds(ended - started) : "–",
    attempt: String(facts.attempts ?? 0),
    priority: String(facts.priority ?? 0),
  };
  for (const [name, value] of Object.entries(values)) {
    write(card.querySelector(`[data-fact="${name}"]`), value);
  }
  show(card, "attempt", facts.attempts > 1);
  show(card, "priority", facts.priority);
}

const show = (card, fact, isWanted) =>
  (card.querySelector(`[data-fact="${fact}"]`).parentElement.hidden = !isWanted);

// A worker calls itself "<alias>-<pid>-<number>".
export const poolPid = (worker) => worker.split("-").at(-2) ?? worker;

function drawOutcome(card, task, facts) {
  const outcome = card.querySelector(".outcome");
  const drawn = task.isMissing ? "MISSING" : facts.status;
  if (outcome.dataset.drawn === drawn) return;
  outcome.dataset.drawn = drawn;
  if (task.isMissing) {
    outcome.replaceChildren(element("p", "", "Its result has made room for newer ones, or the shared memory was removed."));
  } else if (facts.status === "SUCCESSFUL") {
    outcome.replaceChildren(facts.result?.picture ? picture(facts) : figure(facts));
  } else if (facts.status === "FAILED") {
    outcome.replaceChildren(...(isCancelled(facts) ? [] : failure(facts.error)));
  } else {
    outcome.replaceChildren();
  }
}

function figure(facts) {
  const say = OUTCOMES[facts.kind] ?? ((result) => JSON.stringify(result));
  return element("p", "figure", say(facts.result));
}

function picture(facts) {
  const link = element("a");
  const place = facts.progress?.message ?? "a piece of it";
  link.href = facts.result.picture;
  const image = element("img");
  image.src = facts.result.picture;
  image.alt = `The Mandelbrot set: ${place}`;
  image.addEventListener("error", () =>
    link.replaceWith(element("p", "", "The picture has made room for newer results.")),
  );
  link.append(image);
  return link;
}

function failure(error) {
  const details = element("details");
  const trace = element("pre", "", error.traceback);
  trace.tabIndex = 0; // scrolls, so the keyboard must be able to reach it
  details.append(element("summary", "", "Traceback"), trace);
  return [element("p", "error", `${error.type}: ${error.message}`), details];
}
