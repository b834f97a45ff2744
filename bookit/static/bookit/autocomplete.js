/* Gives the fields with a search the names of their labels; without this, screen readers announce
   an unnamed field, because Select2 hides the element that the label names. */
(() => {
  "use strict";

  // Django starts Select2 once the document is ready, which is before all files are loaded.
  window.addEventListener("load", () => {
    for (const select of document.querySelectorAll("select.admin-autocomplete")) {
      const [label] = select.labels;
      const box = select.nextElementSibling?.querySelector("[role=combobox]");
      if (!label || !box) {
        continue;
      }
      label.id ||= `${select.id}-label`;
      const shown = box.querySelector("[role=textbox]");
      box.setAttribute("aria-labelledby", `${label.id} ${shown.id}`);
      shown.setAttribute("aria-labelledby", label.id);
    }
  });
})();
