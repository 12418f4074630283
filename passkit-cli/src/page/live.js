// Refreshes the live part of the page. Without this script, the page is complete, but does not change by itself.
"use strict";
(() => {
  const EVERY = 3000;
  // Replaces only the parts that differ, because a screen reader reads a new part aloud.
  const update = (live, fresh) => {
    const [before, after] = [[...live.children], [...fresh.children]];
    if (before.length !== after.length) return live.replaceChildren(...after);
    before.forEach((part, index) => {
      if (part.outerHTML !== after[index].outerHTML) part.replaceWith(after[index]);
    });
  };
  const refresh = async () => {
    const live = document.getElementById("live");
    // A selection or a focused link would be lost.
    const busy = live.contains(document.activeElement) || !getSelection().isCollapsed;
    if (document.visibilityState !== "visible" || busy) return;
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.redirected) return location.assign(answer.url);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("live");
    // A page that reports a problem has no live part.
    const shown = fresh ?? page.querySelector("main");
    if (shown) update(live, shown);
  };
  const again = async () => {
    try {
      await refresh();
    } catch {
      // The service restarts, or the network is gone. The next attempt may succeed.
    }
    setTimeout(again, EVERY);
  };
  setTimeout(again, EVERY);
})();
