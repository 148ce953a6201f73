// Keeps the page up to date: when the agent says that something changed, and every 15 s anyhow (what is shown as "in
// 4 min" is another then, and whatever kept the agent's word away), asks for the page again and replaces the sections
// that differ. Without this script the page is the same, as of when it was loaded.
"use strict";

(() => {
  const WATCHED = "header > p, main > section";
  const TURN_MS = 15_000;
  const ANSWER_MS = 10_000;
  let asking = false;
  let again = false;
  let events;

  const refresh = async () => {
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    try {
      const answer = await fetch("/", {
        headers: { Accept: "text/html" },
        cache: "no-store",
        signal: AbortSignal.timeout(ANSWER_MS),
      });
      if (answer.ok) {
        replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
        document.body.classList.remove("stale");
      } else {
        stale(); // a restarted proxy, another token
      }
    } catch {
      stale(); // the next turn asks again
    } finally {
      asking = false;
      if (again) {
        again = false;
        refresh();
      }
    }
  };

  const replace = (fresh) => {
    document.title = fresh.title;
    for (const old of document.querySelectorAll(WATCHED)) {
      const next = fresh.getElementById(old.id);
      if (next === null || next.isEqualNode(old)) {
        continue;
      }
      const scroller = old.querySelector(".wide");
      const focused = scroller !== null && scroller === document.activeElement;
      const left = scroller === null ? 0 : scroller.scrollLeft;
      old.replaceWith(document.adoptNode(next));
      const nextScroller = next.querySelector(".wide");
      if (nextScroller !== null) {
        nextScroller.scrollLeft = left;
        if (focused) {
          nextScroller.focus({ preventScroll: true });
        }
      }
    }
  };

  const stale = () => document.body.classList.add("stale");

  const listen = () => {
    events = new EventSource("/api/v1/events");
    events.addEventListener("status", refresh);
    events.addEventListener("error", () => {
      document.body.classList.remove("live");
      refresh(); // which tells whether the agent is there
    });
    events.addEventListener("open", () => document.body.classList.add("live"));
  };

  listen();
  setInterval(() => {
    refresh();
    if (events.readyState === EventSource.CLOSED) {
      listen(); // a stream that was refused is not tried again by itself
    }
  }, TURN_MS);
  window.addEventListener("pagehide", () => events.close());
})();
