// Runs in the page before JupyterLab does and writes down what pops up, however briefly.
(() => {
  const seen = (window.holdfastSeen = { dialogs: [], toasts: [] });
  const kinds = { dialogs: ".jp-Dialog", toasts: ".Toastify__toast" };
  const tell = (element) => (element.innerText || element.textContent || "").trim();
  const look = (node) => {
    if (!(node instanceof Element)) return;
    for (const [kind, selector] of Object.entries(kinds)) {
      const found = node.matches(selector) ? [node] : [...node.querySelectorAll(selector)];
      // After this turn of the event loop: a dialog is attached before its text is.
      for (const one of found) setTimeout(() => seen[kind].push(tell(one)), 0);
    }
  };
  new MutationObserver((changes) => {
    for (const change of changes) change.addedNodes.forEach(look);
  }).observe(document, { childList: true, subtree: true });
})();
