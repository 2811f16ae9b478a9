// One EventSource for all unfinished tasks.
//
// The server ends each stream after a turn and EventSource comes back by itself, to whichever web
// worker is free. It is opened anew only when the set of ids has changed, and closed when nothing
// is left to wait for or nobody is looking.

const AFTER_REFUSAL_MS = 2000; // EventSource gives up for good on an error page of a proxy

export class Feed {
  #url;
  #source = null;
  #wanted = "";
  #asked = "";
  #handlers;

  constructor(url, handlers) {
    this.#url = url;
    this.#handlers = handlers;
    document.addEventListener("visibilitychange", () => this.#adjust());
    window.addEventListener("pagehide", () => this.#close());
    window.addEventListener("pageshow", () => this.#adjust());
  }

  want(ids) {
    this.#wanted = ids.map((id) => `id=${encodeURIComponent(id)}`).join("&");
    this.#adjust();
  }

  #adjust() {
    if (document.hidden || !this.#wanted) {
      this.#close();
    } else if (!this.#source || this.#asked !== this.#wanted) {
      this.#close();
      this.#open();
    }
  }

  #open() {
    const source = new EventSource(`${this.#url}?${this.#wanted}`);
    this.#source = source;
    this.#asked = this.#wanted;
    source.onopen = () => {
      this.#handlers.heard();
      this.#handlers.state("live");
    };
    source.onerror = () => this.#afterError(source);
    for (const name of ["task", "missing"]) {
      source.addEventListener(name, (event) => {
        this.#handlers.heard();
        this.#handlers[name](JSON.parse(event.data));
      });
    }
  }

  // The end of a turn comes as an error too, and is none: only a turn that never opened is.
  #afterError(source) {
    if (source.readyState !== EventSource.CLOSED) {
      this.#handlers.turnEnded();
      return;
    }
    this.#close();
    setTimeout(() => this.#adjust(), AFTER_REFUSAL_MS);
  }

  #close() {
    if (this.#source) {
      this.#source.close();
      this.#source = null;
      this.#handlers.state("idle");
    }
  }
}
