// The browser's own list of tasks. The server keeps none: an id is all it takes to ask again.

const KEY = "django-tasks-local.board";
const MOST = 40;

export function load() {
  try {
    const tasks = JSON.parse(localStorage.getItem(KEY));
    return Array.isArray(tasks) ? tasks.filter((task) => typeof task?.id === "string") : [];
  } catch {
    return []; // storage is switched off, or holds something of somebody else's
  }
}

export function save(tasks) {
  try {
    localStorage.setItem(KEY, JSON.stringify(tasks.slice(0, MOST)));
  } catch {
    // Without storage the list lasts as long as the page.
  }
}

export const isFinished = (task) =>
  task.isMissing || task.facts?.status === "SUCCESSFUL" || task.facts?.status === "FAILED";
