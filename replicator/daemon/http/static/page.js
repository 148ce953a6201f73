// Keeps the page up to date: when the agent says that something changed, asks for the page again and replaces the
// sections that differ. Without this script the page is the same, as of when it was loaded.
"use strict";

(() => {
  const WATCHED = "header > p, main > section";
  let asking = false;
  let again = false;

  const refresh = async () => {
    if (asking) {
      again = true;
      return;
    }
    asking = true;
    try {
      const answer = await fetch("/", { headers: { Accept: "text/html" }, cache: "no-store" });
      if (answer.ok) {
        replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
      }
    } catch {
      stale(); // the next event asks again
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
    document.body.classList.remove("stale");
  };

  const stale = () => document.body.classList.add("stale");

  const events = new EventSource("/api/v1/events");
  events.addEventListener("status", refresh);
  events.addEventListener("error", stale);
  events.addEventListener("open", () => document.body.classList.add("live"));
  window.addEventListener("pagehide", () => events.close());
})();
