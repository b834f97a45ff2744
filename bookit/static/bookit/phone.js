// The page of a call: finds customers while the receptionist types, shows free times, and holds the
// chosen time. Without this script, the form still works, with a button that shows the free times.
"use strict";

(() => {
  const form = document.getElementById("call");
  if (!form) return;
  const data = form.dataset; // the URLs, and the texts, whose names begin with `words`
  const byId = (id) => document.getElementById(id);
  const field = (name) => byId(`id_${name}`);
  const [times, status, left] = ["phone-times", "phone-hold", "phone-left"].map(byId);
  document.body.classList.add("phone-scripted");
  // The script does the work of this button. If the button stayed, Enter would press it, because it
  // is the first submit button.
  form.querySelector(".phone-show").remove();

  /** Return a function that calls `act` after `wait` milliseconds without another call. */
  const later = (act, wait) => {
    let timer;
    return (...values) => {
      clearTimeout(timer);
      timer = setTimeout(act, wait, ...values);
    };
  };

  /** Return the response. If the request fails, tell the user and return null. */
  const ask = async (url, options) => {
    try {
      const response = await fetch(url, options);
      // A user who is signed out is redirected to the sign-in page.
      if (response.ok && !response.redirected) return response;
    } catch {
      // The network is down.
    }
    say(data.wordsLost, true);
    return null;
  };

  const say = (text, lost = false) => {
    status.textContent = text || data.wordsStart;
    status.classList.toggle("lost", lost);
    status.classList.toggle("quiet", !text);
  };

  // --- errors ----------------------------------------------------------------------------------

  /** Show what is wrong with a field, next to it. If `texts` is empty, remove earlier errors. */
  const refuse = (name, texts) => {
    const place = byId(`phone-error-${name}`) || byId("phone-error-start");
    const list = document.createElement("ul");
    list.className = "errorlist";
    for (const text of texts) {
      const item = document.createElement("li");
      item.textContent = text;
      list.append(item);
    }
    place.replaceChildren(...(texts.length ? [list] : []));
    place.closest(".phone-field")?.classList.toggle("errors", texts.length > 0);
  };

  /** Return whether an error is shown for a field. */
  const isRefused = (name) => byId(`phone-error-${name}`).children.length > 0;

  // --- customers -------------------------------------------------------------------------------

  const NAMES = ["name", "phone", "email"];
  const list = document.createElement("ul");
  const [about, coming] = ["phone-customer", "phone-coming"].map(byId);
  const unknown = about.textContent;
  let matches = [];
  let active = -1;
  let asked = 0;
  Object.assign(list, { id: "phone-matches", className: "phone-matches", hidden: true });
  list.setAttribute("role", "listbox");
  list.setAttribute("aria-label", document.getElementById("who").textContent);

  const close = () => {
    list.hidden = true;
    active = -1;
    for (const name of NAMES) {
      field(name).setAttribute("aria-expanded", "false");
      field(name).removeAttribute("aria-activedescendant");
    }
  };

  const mark = (input, index) => {
    active = index;
    [...list.children].forEach((item, at) => item.setAttribute("aria-selected", at === index));
    if (index < 0) input.removeAttribute("aria-activedescendant");
    else input.setAttribute("aria-activedescendant", list.children[index].id);
  };

  const describe = () => {
    const known = field("customer").value !== "";
    about.classList.toggle("known", known);
    about.textContent = known
      ? data.wordsFound
      : field("email").value ? data.wordsNew : unknown;
    byId("phone-other").hidden = !known;
    coming.hidden = !known || !coming.children.length;
  };

  /**
   * Show the next bookings of the customer. If no service is chosen, choose the one that they booked
   * last.
   */
  const showVisits = async () => {
    const id = field("customer").value;
    if (!id) return;
    const response = await ask(`${data.visits}?${new URLSearchParams({ customer: id })}`);
    const found = response && (await response.json());
    if (!found || field("customer").value !== id) return;
    coming.replaceChildren(...found.coming.map((booking) => {
      const item = document.createElement("li");
      const link = document.createElement("a");
      Object.assign(link, { href: booking.url, textContent: booking.words, target: "_blank" });
      item.append(link);
      return item;
    }));
    if (coming.children.length) coming.prepend(data.wordsComing);
    describe();
    const service = field("service");
    if (service.value || ![...service.options].some((each) => each.value === found.service)) return;
    service.value = found.service;
    showTimes();
  };

  const choose = (customer) => {
    field("customer").value = customer.id;
    for (const name of NAMES) {
      field(name).value = customer[name];
      refuse(name, []);
    }
    refuse("customer", []);
    coming.replaceChildren();
    close();
    describe();
    showVisits();
    field("service").focus();
  };

  const search = later(async (input) => {
    const number = ++asked;
    const text = input.value.trim();
    if (text.length < 3 || field("customer").value) return close();
    const response = await ask(`${data.customers}?${new URLSearchParams({ q: text })}`);
    const found = response && (await response.json());
    // Ignore the result if the receptionist has typed another letter or left the field meanwhile.
    if (!found || number !== asked || document.activeElement !== input) return;
    matches = found.customers;
    list.replaceChildren(...matches.map((customer, index) => {
      const item = document.createElement("li");
      const more = document.createElement("small");
      more.textContent = [customer.phone, customer.email].filter(Boolean).join(" · ");
      item.append(customer.name, more);
      item.id = `phone-match-${index}`;
      item.setAttribute("role", "option");
      // Keep the focus in the field. If the field lost the focus, the list would close before the
      // click.
      item.addEventListener("mousedown", (event) => event.preventDefault());
      item.addEventListener("click", () => choose(customer));
      return item;
    }));
    close();
    if (!matches.length) return;
    input.after(list);
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    mark(input, -1);
  }, 120);

  for (const name of NAMES) {
    const input = field(name);
    for (const [key, value] of Object.entries({
      role: "combobox", "aria-autocomplete": "list", "aria-controls": list.id,
    })) input.setAttribute(key, value);
    input.addEventListener("input", () => {
      refuse(name, []);
      describe();
      search(input);
    });
    input.addEventListener("blur", close);
    input.addEventListener("keydown", (event) => {
      if (list.hidden) return;
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      // If no match is marked (`active` is -1), the key up marks the last one.
      if (step) mark(input, (active + step + matches.length + (active < 0 && step < 0)) % matches.length);
      else if (event.key === "Enter" && active >= 0) choose(matches[active]);
      else if (event.key === "Escape") close();
      else return;
      event.preventDefault();
    });
  }
  form.append(list);
  close();

  byId("phone-other").addEventListener("click", () => {
    for (const name of ["customer", ...NAMES]) field(name).value = "";
    refuse("customer", []);
    coming.replaceChildren();
    describe();
    field("name").focus();
  });

  // --- free times ------------------------------------------------------------------------------

  let shown = 0;
  let showing = Promise.resolve();

  const firstTime = () => times.querySelector("input, .phone-next") || field("day");

  const loadTimes = async () => {
    const number = ++shown;
    // The release of the hold may reach the server after the request for free times. The request
    // contains the id of the hold, so that the server offers the time of the hold in any case.
    const hold = field("hold").value;
    release();
    refuse("start", []);
    refuse("service", []);
    const hadFocus = times.contains(document.activeElement);
    times.setAttribute("aria-busy", "true");
    times.inert = true; // The choice of a time that is about to be replaced would be lost.
    const query = new URLSearchParams({ service: field("service").value, day: field("day").value, hold });
    if (field("overrides")?.checked) query.set("overrides", "on");
    const response = await ask(`${data.times}?${query}`);
    const text = response && (await response.text());
    if (number !== shown) return;
    times.removeAttribute("aria-busy");
    times.inert = false;
    if (text !== null) times.innerHTML = text;
    if (hadFocus && document.activeElement === document.body) firstTime().focus();
  };
  const showTimes = () => (showing = loadTimes());
  const showTimesSoon = later(showTimes, 200);
  for (const name of ["day", "overrides"]) {
    field(name)?.addEventListener("change", showTimesSoon);
  }
  field("service").addEventListener("change", showTimes);
  field("service").addEventListener("keydown", async (event) => {
    // In a <select>, browsers do nothing on Enter. Here, Enter leads to the free times.
    if (event.key !== "Enter" || !field("service").value) return;
    event.preventDefault();
    await showing;
    firstTime().focus();
  });
  times.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-day]");
    if (!button) return;
    const label = button.textContent;
    field("day").value = button.dataset.day;
    await showTimes();
    // The button was replaced together with the times.
    const again = [...times.querySelectorAll("button:enabled")].find((each) => each.textContent === label);
    again?.focus();
  });

  // --- the hold --------------------------------------------------------------------------------

  let ends = 0;
  // Rises when a time is chosen and when a hold is released. A hold that was requested before is no
  // longer wanted.
  let holds = 0;
  let sent = false;

  const values = () => {
    const all = new FormData(form);
    const some = new FormData();
    for (const name of ["csrfmiddlewaretoken", "service", "day", "overrides", "start", "customer", "hold"]) {
      if (all.has(name)) some.set(name, all.get(name));
    }
    return some;
  };

  const forget = () => {
    ends = 0;
    left.textContent = "";
    field("hold").value = "";
  };

  const release = () => {
    holds += 1;
    if (field("hold").value) navigator.sendBeacon(data.release, values());
    forget();
    say("");
  };

  const holdNow = async (input, number) => {
    if (number !== holds || sent) return;
    const response = await ask(data.hold, { method: "POST", body: values() });
    const answer = response && (await response.json());
    if (!answer) return;
    if (answer.hold && number !== holds) {
      // The user has chosen another time, service or day since. Release this hold, because the next
      // hold may need its seat.
      const stale = values();
      stale.set("hold", answer.hold);
      await ask(data.release, { method: "POST", body: stale });
    } else if (answer.hold) {
      field("hold").value = answer.hold;
      ends = performance.now() + 1000 * answer.seconds;
      const label = input.closest("label");
      const time = label.dataset.words || label.textContent.trim();
      say(data.wordsHeld.replace("%(time)s", () => time));
    } else if (number === holds) {
      forget();
      say("");
      times.innerHTML = answer.times;
      for (const [name, texts] of Object.entries(answer.errors)) refuse(name, texts);
      firstTime().focus();
    }
  };
  // Requests for holds run one after another, so that a call never holds two seats.
  let queue = Promise.resolve();
  const hold = later((input, number) => {
    queue = queue.then(() => holdNow(input, number));
  }, 300);

  // The arrow keys choose each time that they pass, so a hold waits until they stop.
  const holdChosen = () => {
    const input = form.querySelector("input[name=start]:checked");
    if (!input) return;
    for (const name of ["start", "customer"]) refuse(name, []);
    say(data.wordsHolding);
    hold(input, ++holds);
  };
  times.addEventListener("change", (event) => event.target.name === "start" && holdChosen());

  setInterval(() => {
    if (!ends) return;
    const seconds = Math.max(0, Math.round((ends - performance.now()) / 1000));
    left.textContent = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    if (seconds) return;
    forget();
    say(data.wordsEnded, true);
  }, 1000);

  // --- the booking -----------------------------------------------------------------------------

  /** Show the first missing detail, and go to its field. Return whether a detail is missing. */
  const isMissing = () => {
    const has = (name) => field(name).value.trim() !== "";
    const [name, text, place] =
      !has("name") ? ["name", data.wordsName, field("name")]
      : !has("customer") && !has("phone") && !has("email") ? ["phone", data.wordsReach, field("phone")]
      : !has("service") ? ["service", data.wordsService, field("service")]
      : !form.querySelector("input[name=start]:checked") ? ["start", data.wordsTime, firstTime()]
      : [];
    if (!name) return false;
    refuse(name, [text]);
    place.focus();
    return true;
  };

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    // A second click must not send the form again.
    if (sent || isMissing()) return;
    sent = true;
    // Wait for a hold that is under way, so that the form sends its id and books the held seat.
    // Otherwise, the hold could take the seat from the booking.
    await queue;
    if (isRefused("start") || isRefused("customer")) sent = false;
    else form.submit();
  });
  // If the call ends without a booking, release the hold.
  window.addEventListener("pagehide", () => {
    if (!sent && field("hold").value) navigator.sendBeacon(data.release, values());
  });
  // If the user comes back, the browser may show the page as it was left. Its hold was released or
  // booked.
  window.addEventListener("pageshow", (event) => {
    if (event.persisted) {
      sent = false;
      forget();
      say("");
      showTimes();
    }
  });

  // A customer and a time may be chosen already, by a link or in a form that was refused.
  say("");
  describe();
  showVisits();
  holdChosen();
  // The first field with an error gets the focus, instead of the name.
  const wrong = [...form.querySelectorAll(".phone-error")].find((each) => each.children.length);
  if (wrong) {
    (wrong.parentElement.closest(".phone-field")?.querySelector("input, select, textarea") || firstTime()).focus();
  }
})();
