/* Names autocomplete fields by their labels. Otherwise, screen readers would announce a field
   without a name, because Select2 hides the element that the label belongs to. */
(() => {
  "use strict";

  const name = (select) => {
    const [label] = select.labels;
    const box = select.nextElementSibling?.querySelector("[role=combobox]");
    if (!label || !box) {
      return;
    }
    label.id ||= `${select.id}-label`;
    const shown = box.querySelector("[role=textbox]");
    box.setAttribute("aria-labelledby", `${label.id} ${shown.id}`);
    shown.setAttribute("aria-labelledby", label.id);
  };

  document.addEventListener("DOMContentLoaded", () => {
    // jQuery calls functions in the order in which it received them. Django's function, which
    // starts Select2, came before this function.
    window.django.jQuery(() => {
      document.querySelectorAll("select.admin-autocomplete").forEach(name);
    });
  });
})();
