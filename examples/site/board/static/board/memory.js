// The browser's own list of tasks. The server keeps none: an id is all it takes to ask again.
//
// All tabs share it: each change is made to the list as it is now, and the others are told.

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

// Returns the list that `edit` makes of the present one; `mine` where there is no storage.
export function update(mine, edit) {
  try {
    const tasks = edit(localStorage.getItem(KEY) === null ? mine : load()).slice(0, MOST);
    localStorage.setItem(KEY, JSON.stringify(tasks));
    return tasks;
  } catch {
    return edit(mine); // the list lasts as long as the page
  }
}

export function onChangeElsewhere(tell) {
  window.addEventListener("storage", (event) => {
    if (event.key === KEY || event.key === null) tell(load());
  });
}

export const isFinished = (task) =>
  task.isMissing || task.facts?.status === "SUCCESSFUL" || task.facts?.status === "FAILED";
