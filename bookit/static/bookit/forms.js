/* Forms of the admin site: rows that can be added and removed, opening hours, previews that follow what is entered, and
   the fields of a repetition. */
(() => {
  "use strict";

  const WAIT = 350; // Milliseconds without a keystroke before a preview is loaded.

  /**
   * Return a function that loads a fragment of the page, and passes it to `show`. Only the response
   * to the latest request counts. If the server does not return a fragment, `fail` is called.
   */
  const loader = (show, fail = () => {}) => {
    let current = 0;
    let timer;
    return (url) => {
      clearTimeout(timer);
      timer = setTimeout(async () => {
        const mine = (current += 1);
        let html = null;
        try {
          const response = await fetch(url, { headers: { Accept: "text/html" } });
          html = response.ok && !response.redirected ? await response.text() : null;
        } catch {
          // The server cannot be reached.
        }
        if (mine !== current) {
          return;
        }
        if (html === null) {
          fail(); // Show no error: saving the form reports every error.
        } else {
          show(html);
        }
      }, WAIT);
    };
  };

  const isShown = (row) => !row.hidden;
  const inputs = (row) => [...row.querySelectorAll("input:not([type=hidden], [type=checkbox])")];
  const isBlank = (row) => inputs(row).every((input) => !input.value);

  /** Return functions that add and remove rows of a formset; null if users may only read it. */
  const rowsOf = (group) => {
    const prefix = group.dataset.rows;
    const total = group.querySelector(`[name="${prefix}-TOTAL_FORMS"]`);
    const stored = Number(group.querySelector(`[name="${prefix}-INITIAL_FORMS"]`).value);
    const template = group.querySelector("template");
    if (!template) {
      return null;
    }
    const number = (row) => Number(row.querySelector("[name]").name.split("-")[1]);

    const remove = (row) => {
      if (number(row) >= stored) {
        row.remove(); // TOTAL_FORMS still counts the row: Django takes a missing row for an empty one.
        return;
      }
      row.querySelector("[name$=-DELETE]").checked = true;
      row.hidden = true;
    };
    const prepare = (row) => {
      row.querySelector(".rows-delete").hidden = true;
      row.querySelector("[data-remove]").hidden = false;
      if (row.querySelector("[name$=-DELETE]").checked) {
        row.hidden = true;
      }
    };
    const add = (list, before, words = {}) => {
      let html = template.innerHTML.replaceAll("__prefix__", total.value);
      for (const [name, value] of Object.entries(words)) {
        html = html.replaceAll(name, value);
      }
      total.value = Number(total.value) + 1;
      const holder = document.createElement("div");
      holder.innerHTML = html;
      const row = holder.querySelector("[data-row]");
      list.insertBefore(row, before);
      prepare(row);
      return row;
    };
    for (const row of group.querySelectorAll("[data-row]")) {
      if (number(row) >= stored && isBlank(row) && !("wrong" in row.dataset)) {
        row.remove(); // The spare rows are for browsers without scripts.
      } else {
        prepare(row);
      }
    }
    return { add, remove };
  };

  /** The opening hours of a week. */
  const week = (group) => {
    const rows = rowsOf(group);
    if (!rows) {
      return;
    }
    const days = [...group.querySelectorAll(".week-day")];
    const shown = (day) => [...day.querySelectorAll("[data-row]")].filter(isShown);
    const update = () => {
      // A calendar without any hours is always open.
      const always = days.every((day) => !shown(day).length);
      for (const day of days) {
        const label = day.querySelector(".week-closed");
        label.hidden = shown(day).length > 0;
        label.textContent = always ? label.dataset.always : label.dataset.closed;
      }
    };
    const add = (day) => {
      const list = day.querySelector(".week-spans");
      const row = rows.add(list, list.querySelector(".week-closed"), {
        __day__: day.dataset.name,
      });
      row.querySelector("[name$=-weekday]").value = day.dataset.weekday;
      update();
      return row;
    };
    const copy = (from, to) => {
      const spans = shown(from).map((row) => inputs(row).map((input) => input.value));
      shown(to).forEach(rows.remove);
      for (const values of spans) {
        inputs(add(to)).forEach((input, index) => {
          input.value = values[index];
        });
      }
      update();
    };
    for (const day of days) {
      day.querySelector(".week-tools").hidden = false;
      const menu = day.querySelector(".week-copy");
      day.addEventListener("click", (event) => {
        const { target } = event;
        if (target.closest("[data-add]")) {
          inputs(add(day))[0].focus();
        } else if (target.closest("[data-remove]")) {
          rows.remove(target.closest("[data-row]"));
          update();
          day.querySelector("[data-add]").focus();
        } else if (target.closest("[data-copy]")) {
          const chosen = [...menu.querySelectorAll("input:checked")].map((input) => input.value);
          const others = days.filter((each) => chosen.includes(each.dataset.weekday));
          others.forEach((other) => copy(day, other));
          menu.open = false;
          menu.querySelector("summary").focus();
          const status = group.querySelector(".rows-status");
          const names = others.map((other) => other.dataset.name).join(", ");
          status.textContent = names && `${status.dataset.copied} ${names}.`;
        }
      });
      menu.addEventListener("keydown", (event) => {
        if (event.key === "Escape") {
          menu.open = false;
          menu.querySelector("summary").focus();
        }
      });
    }
    update();
    document.addEventListener("click", (event) => {
      for (const menu of group.querySelectorAll(".week-copy[open]")) {
        menu.open = menu.contains(event.target);
      }
    });
  };

  /** The rows of time off, each with the bookings that it would affect. */
  const timeOff = (group) => {
    const rows = rowsOf(group);
    if (!rows) {
      return;
    }
    const follow = (row) => {
      const affected = row.querySelector("[data-affected]");
      const consent = row.querySelector("[data-consent]");
      const load = loader((html) => {
        affected.innerHTML = html;
        consent.hidden = !affected.querySelector("[data-count]");
      });
      row.addEventListener("input", ({ target }) => {
        if (!group.dataset.preview || !["date", "time"].includes(target.type)) {
          return;
        }
        // The user has agreed to keep the bookings in the old period, not those in the new one.
        consent.querySelector("input").checked = false;
        const query = new URLSearchParams({ zone: group.querySelector("[data-zone]").value });
        for (const input of row.querySelectorAll("[type=date], [type=time]")) {
          query.set(input.name.replace(/^.*-/, ""), input.value);
        }
        load(`${group.dataset.preview}?${query}`);
      });
    };
    const list = group.querySelector("[data-list]");
    const button = group.querySelector("[data-add]");
    button.hidden = false;
    list.querySelectorAll("[data-row]").forEach(follow);
    group.addEventListener("click", ({ target }) => {
      if (target === button) {
        const row = rows.add(list, null);
        follow(row);
        inputs(row)[0].focus();
      } else if (target.closest("[data-remove]")) {
        rows.remove(target.closest("[data-row]"));
        button.focus();
      }
    });
  };

  /** A fragment of the page that is loaded again whenever its form changes. */
  const preview = (card) => {
    const form = document.querySelector(card.dataset.form);
    const ready = () => card.removeAttribute("aria-busy");
    const load = loader((html) => {
      card.innerHTML = html;
      ready();
    }, ready);
    const refresh = () => {
      const query = new URLSearchParams(new FormData(form));
      query.delete("csrfmiddlewaretoken");
      for (const name of [...query.keys()]) {
        // The preview does not need the values that the form had when it was opened (`initial-...`).
        // A description could make the URL too long.
        if (name.startsWith("initial-") || name === "description") {
          query.delete(name);
        }
      }
      card.setAttribute("aria-busy", "true");
      load(`${card.dataset.preview}?${query}`);
    };
    form.addEventListener("input", refresh);
    // Select2 announces a choice only as an event of jQuery. This handler also receives the
    // browser's own `change` events.
    window.django.jQuery(form).on("change", refresh);
  };

  /** The form that publishes slots shows only the fields that the chosen repetition needs. */
  const repetition = (select) => {
    const field = (name) => document.querySelector(`[data-field=${name}]`);
    const unit = field("interval").querySelector(".unit");
    const update = () => {
      const words = document.querySelector(`[data-unit=${select.value}]`);
      if (words) {
        unit.textContent = words.content.textContent;
      }
      for (const name of ["interval", "count", "until"]) {
        field(name).hidden = select.value === "once";
      }
      field("weekdays").hidden = select.value !== "weekly";
    };
    select.addEventListener("change", update);
    update();
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".publish [name=repeat]").forEach(repetition);
    document.querySelectorAll("[name=_preview]").forEach((button) => {
      button.hidden = true; // The preview follows the form.
    });
    document.querySelectorAll(".week").forEach(week);
    document.querySelectorAll(".off").forEach(timeOff);
    document.querySelectorAll("[data-form][data-preview]").forEach(preview);
  });
})();
