/* Renews the live parts of a page of tasks, as often as its reader wants, while it can be seen. */
"use strict";

{
    const HEADER = "X-Local-Tasks-Live";
    const KEY = "django-tasks-local.refresh";
    const select = document.getElementById("lt-every");
    const told = document.getElementById("lt-told");
    let timer = 0;
    let asking = false;
    let renewed = new Date();
    const shown = new WeakMap(); // parts of the page, each as the server sent it last

    for (const part of document.querySelectorAll("[data-live]")) {
        shown.set(part, part.innerHTML);
    }

    const stored = () => {
        try {
            return localStorage.getItem(KEY);
        } catch {
            return null; // cookies are off
        }
    };
    const store = (value) => {
        try {
            localStorage.setItem(KEY, value);
        } catch {
            // it holds for this page
        }
    };

    const tell = (text) => {
        if (told.textContent !== text) {
            told.textContent = text;
        }
    };

    const isBeingRead = (part) => {
        const selection = getSelection();
        return !selection.isCollapsed && selection.containsNode(part, true);
    };

    /* Puts a new state into a part of the page, and leaves what the reader does as it is. */
    const replace = (part, fresh) => {
        const active = part.contains(document.activeElement) ? document.activeElement.id : "";
        const checked = [...part.querySelectorAll("input:checked")].map((each) => each.id);
        const places = [...part.querySelectorAll("[data-keep], .lt-scroll")].map(
            (each) => [each.scrollLeft, each.scrollTop],
        );
        part.replaceChildren(...fresh.childNodes);
        for (const id of checked) {
            const box = document.getElementById(id);
            if (box) {
                box.checked = true;
            }
        }
        part.querySelectorAll("[data-keep], .lt-scroll").forEach((each, number) => {
            [each.scrollLeft, each.scrollTop] = places[number] || [0, 0];
        });
        if (active) {
            document.getElementById(active)?.focus({ preventScroll: true });
        }
        showSelectAll();
    };

    const renewAll = (text) => {
        const page = new DOMParser().parseFromString(text, "text/html");
        for (const part of document.querySelectorAll("[data-live]")) {
            const fresh = page.getElementById(part.id);
            if (fresh && fresh.innerHTML !== shown.get(part) && !isBeingRead(part)) {
                shown.set(part, fresh.innerHTML);
                replace(part, fresh);
            }
        }
    };

    const ask = async () => {
        if (asking) {
            return;
        }
        asking = true;
        try {
            const answer = await fetch(location.href, {
                headers: { [HEADER]: "1" },
                signal: AbortSignal.timeout(10000),
            });
            if (answer.headers.has(HEADER)) {
                renewAll(await answer.text());
                renewed = new Date();
                tell("");
            } else if (answer.redirected || answer.status === 403) {
                tell(select.parentElement.dataset.out);
            } else {
                throw new Error(answer.status);
            }
        } catch {
            tell(`${select.parentElement.dataset.lost} ${renewed.toLocaleTimeString()}.`);
        } finally {
            asking = false;
        }
    };

    const start = () => {
        clearInterval(timer);
        const seconds = Number(select.value);
        if (seconds && !document.hidden) {
            timer = setInterval(ask, seconds * 1000);
        }
    };

    const boxes = () => [...document.querySelectorAll(".lt-tasks input[name=id]")];

    const showSelectAll = () => {
        const all = document.getElementById("lt-all");
        if (all) {
            all.hidden = !boxes().length;
            all.checked = boxes().length > 0 && boxes().every((each) => each.checked);
        }
    };

    document.addEventListener("change", ({ target }) => {
        if (target.id === "lt-all") {
            boxes().forEach((each) => {
                each.checked = target.checked;
            });
        } else if (target.name === "id") {
            showSelectAll();
        }
    });
    showSelectAll();

    if (select) {
        const wanted = stored();
        if ([...select.options].some((each) => each.value === wanted)) {
            select.value = wanted;
        }
        select.addEventListener("change", () => {
            store(select.value);
            start();
        });
        document.addEventListener("visibilitychange", () => {
            if (!document.hidden && select.value !== "0") {
                ask();
            }
            start();
        });
        document.getElementById("lt-refresh").hidden = false;
        start();
    }
}
