/* The diary: draws what /admin/bookings/booking/diary/sheet/ returns, and sends moves and closed
   times. Every time is a wall-clock time in the zone of the page, without an offset; the server
   knows which instant it is. */
"use strict";

(() => {
  const config = JSON.parse(document.getElementById("diary-config").textContent);
  const words = config.words;
  const byId = (id) => document.getElementById(id);
  const status = byId("diary-status");
  const locale = document.documentElement.lang || undefined;
  const calendars = new Map(config.calendars.map((each) => [each.id, each]));
  const several = config.calendars.length > 1;
  const narrow = matchMedia("(max-width: 700px)");

  // How often an open diary asks whether something has changed.
  const REFRESH_MS = 15000;
  // With more calendars than this, a week has one row for each calendar instead of many columns.
  const MOST_IN_COLUMNS = 3;

  // --- wall-clock times ---------------------------------------------------------------------

  // Dates are always read and written as if they were in UTC, so that a change of clocks in the
  // browser's own zone cannot move them.
  const instant = (wall) => new Date(`${wall}Z`);
  const wallOf = (date) => date.toISOString().slice(0, 19);
  const plus = (wall, seconds) => wallOf(new Date(instant(wall).getTime() + seconds * 1000));
  const asked = (options) => new Intl.DateTimeFormat(locale, { timeZone: "UTC", ...options });
  const clock = asked({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const longDay = asked({ weekday: "long", day: "numeric", month: "long", year: "numeric" });
  const month = asked({ month: "long", year: "numeric" });

  function period(entry) {
    const [start, end] = [instant(entry.start), instant(entry.end)];
    const last = plus(entry.end, -1).slice(0, 10) === entry.start.slice(0, 10) ? "" : `${longDay.format(end)}, `;
    return `${longDay.format(start)}, ${clock.format(start)}–${last}${clock.format(end)}`;
  }

  function fill(text, values) {
    return text.replace(/%\((\w+)\)s/g, (_, name) => values[name]);
  }

  function element(tag, className, text) {
    const made = document.createElement(tag);
    made.className = className;
    made.textContent = text;
    return made;
  }

  // --- what the sheet shows -----------------------------------------------------------------

  function background(entry, kind, words) {
    return {
      start: entry.start,
      end: entry.end,
      resourceIds: [entry.calendar],
      display: "background",
      classNames: [`diary-${kind}`],
      extendedProps: { kind, lines: words },
    };
  }

  function offEvent(entry) {
    const event = background(entry, "off", [words.off, entry.reason]);
    event.extendedProps.entry = entry;
    return event;
  }

  function bookingEvent(entry) {
    return {
      id: entry.id,
      start: entry.start,
      end: entry.end,
      resourceIds: [entry.calendar],
      classNames: ["diary-entry", `diary-${entry.status}`, `diary-id-${entry.id}`],
      startEditable: entry.movable && Boolean(calendars.get(entry.calendar)?.movable),
      extendedProps: {
        kind: "booking",
        entry,
        lines: [entry.attendee, entry.service, entry.state],
      },
    };
  }

  function slotEvent(entry) {
    const lines = [entry.service, fill(words.taken, entry)];
    if (entry.pending) lines.push(fill(words.pending, { count: entry.pending }));
    return {
      id: entry.id,
      start: entry.start,
      end: entry.end,
      resourceIds: [entry.calendar],
      classNames: ["diary-entry", "diary-slot", `diary-id-${entry.id}`],
      startEditable: false,
      extendedProps: { kind: "slot", entry, lines },
    };
  }

  function eventsOf(found) {
    return [
      ...found.closed.map((each) => background(each, "closed", [])),
      ...found.buffers.map((each) => background(each, "buffer", [])),
      ...found.off.map(offEvent),
      ...found.slots.map(slotEvent),
      ...found.bookings.map(bookingEvent),
    ];
  }

  function content({ event, timeText }) {
    const { kind, lines } = event.extendedProps;
    if (!lines) return undefined;
    const nodes = kind === "booking" || kind === "slot" ? [element("time", "ec-event-time", timeText)] : [];
    lines.filter(Boolean).forEach((line, number) => {
      nodes.push(element("span", `diary-line diary-line-${number}`, line));
    });
    const calendar = calendars.get(event.resourceIds[0]);
    if (kind === "off" && calendar?.closable) {
      const button = element("button", "diary-reopen", words.reopen);
      button.type = "button";
      // Otherwise, pressing the button would begin to select time.
      button.addEventListener("pointerdown", (pressed) => pressed.stopPropagation());
      button.addEventListener("click", () => askToReopen(event.extendedProps.entry));
      nodes.push(button);
    }
    if (several && nodes.length && ["month", "list"].includes(view)) {
      nodes.push(element("span", "diary-line diary-where", calendar?.title ?? ""));
    }
    return { domNodes: nodes };
  }

  // --- views and days -----------------------------------------------------------------------

  let view = config.view || (several || narrow.matches ? "day" : "week");

  function viewName() {
    const wide = config.calendars.length > MOST_IN_COLUMNS;
    return {
      day: several ? "resourceTimeGridDay" : "timeGridDay",
      week: several ? (wide ? "resourceTimelineWeek" : "resourceTimeGridWeek") : "timeGridWeek",
      month: "dayGridMonth",
      list: "listWeek",
    }[view];
  }

  let shown = null; // the first day of the sheet, and the day after its last
  let hours = ""; // the hours between which days are drawn
  let etag = "";
  let asking = null;

  const ec = EventCalendar.create(byId("diary"), {
    view: viewName(),
    date: config.date,
    timeZone: config.offset,
    locale,
    firstDay: 1,
    headerToolbar: { start: "", center: "", end: "" },
    resources: config.calendars.map(({ id, title }) => ({ id, title })),
    events: [],
    allDaySlot: false,
    nowIndicator: true,
    flexibleSlotTimeLimits: true,
    slotEventOverlap: false,
    slotDuration: "00:30",
    snapDuration: "00:05",
    slotHeight: 28,
    scrollTime: "08:00",
    dayMaxEvents: true,
    datesAboveResources: true,
    eventTimeFormat: (start, end) => `${clock.format(asUtc(start))}–${clock.format(asUtc(end))}`,
    slotLabelFormat: (time) => clock.format(asUtc(time)),
    dayHeaderFormat: { weekday: "short", day: "numeric", month: "short" },
    columnWidth: `minmax(${several ? 7.5 : 4.5}rem, 1fr)`,
    views: {
      resourceTimelineWeek: { slotDuration: "01:00", slotWidth: 56, slotHeight: 28 },
      timeGridDay: { dayHeaderFormat: { weekday: "long", day: "numeric", month: "long" } },
      resourceTimeGridDay: { dayHeaderFormat: { weekday: "long", day: "numeric", month: "long" } },
    },
    editable: false,
    eventStartEditable: false,
    eventDurationEditable: false,
    selectable: Boolean(byId("diary-book") || byId("diary-close")),
    eventContent: content,
    eventClick: ({ event }) => open(event.extendedProps),
    dragConstraint: ({ newResource }) => newResource === undefined,
    eventDrop: ({ event, delta, revert }) => {
      const entry = event.extendedProps.entry;
      revert();
      askToMove(entry, plus(entry.start, delta.seconds + delta.days * 86400));
    },
    select: ({ startStr, endStr, resource }) => {
      const only = several ? undefined : config.calendars[0]?.id;
      chooseFor({ calendar: resource?.id ?? only, start: startStr, end: endStr });
    },
    datesSet: ({ start, end }) => {
      // Called for the same days, too, for example after the hours have changed.
      const days = { first: dayOf(start), until: dayOf(end) };
      const isNew = days.first !== shown?.first || days.until !== shown?.until;
      shown = days;
      // The first call may come before this script has run to its end.
      queueMicrotask(isNew ? load : showTitle);
    },
  });

  // EventCalendar passes dates whose local parts are the wall-clock time.
  function asUtc(date) {
    return new Date(
      Date.UTC(date.getFullYear(), date.getMonth(), date.getDate(), date.getHours(), date.getMinutes()),
    );
  }

  function dayOf(date) {
    return wallOf(asUtc(date)).slice(0, 10);
  }

  function showTitle() {
    const day = instant(`${dayOf(ec.getOption("date"))}T00:00`);
    const monday = instant(`${shown.first}T00:00`);
    byId("diary-title").textContent = {
      day: longDay.format(day),
      month: month.format(day),
    }[view] ?? fill(words.week, { day: longDay.format(monday) });
    byId("diary-date").value = wallOf(day).slice(0, 10);
    for (const button of document.querySelectorAll("[data-view]")) {
      button.setAttribute("aria-pressed", String(button.dataset.view === view));
    }
    const form = byId("diary-choice");
    form.elements.view.value = view;
    form.elements.date.value = byId("diary-date").value;
    const query = new URLSearchParams(new FormData(form));
    history.replaceState(null, "", `?${query}`);
  }

  // --- reading ------------------------------------------------------------------------------

  async function load() {
    asking?.abort();
    etag = "";
    showTitle();
    byId("diary").setAttribute("aria-busy", "true");
    await refresh();
  }

  async function refresh() {
    const query = new URLSearchParams({ ...shown, zone: config.zone });
    for (const id of calendars.keys()) query.append("calendar", id);
    if (!calendars.size) return;
    asking = new AbortController();
    const { signal } = asking;
    try {
      const response = await fetch(`${config.urls.sheet}?${query}`, {
        headers: etag ? { "If-None-Match": etag } : {},
        signal,
      });
      if (response.status === 304) return say("");
      const found = await read(response);
      if (!response.ok) return say(found.message);
      etag = response.headers.get("ETag") ?? "";
      draw(found);
    } catch (error) {
      if (error.name !== "AbortError") say(error.message === words.signed_out ? error.message : words.failed);
    }
  }

  async function read(response) {
    // Whoever is signed out is redirected to a page.
    if (response.redirected) throw new Error(words.signed_out);
    return response.json();
  }

  function draw(found) {
    const focused = document.activeElement?.closest?.(".diary-entry");
    const mark = [...(focused?.classList ?? [])].find((name) => name.startsWith("diary-id-"));
    if (hours !== `${found.opens}-${found.closes}`) {
      hours = `${found.opens}-${found.closes}`;
      ec.setOption("slotMinTime", `${found.opens}:00`);
      ec.setOption("slotMaxTime", `${found.closes}:00`);
    }
    ec.setOption("events", eventsOf(found));
    byId("diary").setAttribute("aria-busy", "false");
    const isEmpty = !found.bookings.length && !found.slots.length;
    say(found.more ? words.more : isEmpty ? words.empty : "");
    if (mark) requestAnimationFrame(() => document.querySelector(`#diary .${mark}`)?.focus());
  }

  // What the last reading found. Screen readers hear only what is new.
  function say(text) {
    const note = byId("diary-note");
    if (note.textContent !== text) note.textContent = text;
  }

  // What the last change did.
  function report(text, links = []) {
    const parts = links.flatMap(({ url, label }) => {
      const link = element("a", "", label);
      link.href = url;
      return [" ", link];
    });
    status.replaceChildren(text, ...parts);
  }

  function refreshIfIdle() {
    const busy = document.hidden || document.querySelector("dialog[open], .ec-preview");
    if (!busy && shown) refresh();
  }

  setInterval(refreshIfIdle, REFRESH_MS);
  // Whoever comes back to the page does not wait for the next interval.
  document.addEventListener("visibilitychange", refreshIfIdle);

  // --- dialogs ------------------------------------------------------------------------------

  for (const dialog of document.querySelectorAll(".diary-dialog")) {
    dialog.addEventListener("click", ({ target }) => {
      if (target === dialog || target.closest("[data-dismiss]")) dialog.close();
    });
    dialog.addEventListener("close", () => ec.unselect());
  }

  const part = (dialog, name) => dialog.querySelector(name);

  function open({ kind, entry }) {
    if (kind !== "booking" && kind !== "slot") return;
    const dialog = byId("diary-booking");
    const isBooking = kind === "booking";
    const calendar = calendars.get(entry.calendar);
    part(dialog, "h2").textContent = isBooking ? entry.attendee : entry.service;
    const what = isBooking
      ? [entry.service, entry.state]
      : [fill(words.taken, entry), entry.pending ? fill(words.pending, { count: entry.pending }) : ""];
    part(dialog, ".diary-what").textContent = [...what, calendar?.title].filter(Boolean).join(" · ");
    part(dialog, ".diary-when").textContent = `${period(entry)} (${config.zone})`;
    const phone = part(dialog, ".diary-phone a");
    phone.textContent = entry.phone ?? "";
    phone.href = `tel:${(entry.phone ?? "").replace(/[^+\d]/g, "")}`;
    part(dialog, ".diary-phone").hidden = !entry.phone;
    part(dialog, "[data-open]").href = config.urls[kind].replace("ID", entry.id);
    const button = part(dialog, "[data-move]");
    button.hidden = !(isBooking && entry.movable && calendar?.movable);
    button.onclick = () => {
      dialog.close();
      askToMove(entry, entry.start);
    };
    const seat = part(dialog, "[data-seat]");
    if (seat) {
      seat.hidden = isBooking || entry.taken >= entry.capacity;
      seat.onclick = () => {
        dialog.close();
        askToBook({ start: entry.start, service: entry.service_id });
      };
    }
    dialog.showModal();
  }

  const moving = byId("diary-move");
  const moveForm = part(moving, "form");

  function askToMove(entry, start) {
    showRefusal(moving, {});
    moveForm.elements.booking.value = entry.id;
    moveForm.elements.start.value = start.slice(0, 16);
    part(moving, ".diary-what").textContent = `${entry.attendee} · ${entry.service}`;
    part(moving, ".diary-when").textContent = period(entry);
    if (!moving.open) moving.showModal();
    if (start === entry.start) moveForm.elements.start.focus();
    else part(moving, "[type=submit]").focus();
  }

  function showRefusal(dialog, { message = "", alternatives = [] }) {
    part(dialog, ".diary-error").textContent = message;
    const offered = part(dialog, ".diary-alternatives");
    if (!offered) return;
    offered.hidden = !alternatives.length;
    part(offered, ".diary-buttons").replaceChildren(
      ...alternatives.map(({ start, label }) => {
        const button = element("button", "diary-button", label);
        button.type = "button";
        button.onclick = () => {
          const form = part(dialog, "form");
          form.elements.start.value = start.slice(0, 16);
          form.requestSubmit();
        };
        return button;
      }),
    );
  }

  async function send(dialog, form, url) {
    const buttons = [...form.querySelectorAll("button")];
    buttons.forEach((button) => (button.disabled = true));
    try {
      const response = await fetch(url, {
        method: "POST",
        body: new URLSearchParams(new FormData(form)),
      });
      const found = await read(response);
      if (!response.ok) return showRefusal(dialog, found);
      dialog.close();
      report(found.message, found.bookings);
      etag = "";
      await refresh();
    } catch (error) {
      showRefusal(dialog, { message: error.message === words.signed_out ? error.message : words.failed });
    } finally {
      buttons.forEach((button) => (button.disabled = false));
    }
  }

  moveForm.addEventListener("submit", (event) => {
    event.preventDefault();
    send(moving, moveForm, config.urls.move);
  });

  const closing = byId("diary-close");
  const closeForm = closing && part(closing, "form");
  const closable = config.calendars.filter((each) => each.closable);

  const mayClose = (calendar) =>
    Boolean(closing && closable.length && (!calendar || calendars.get(calendar).closable));

  function askToClose({ calendar, start, end }) {
    showRefusal(closing, {});
    closeForm.elements.calendar.value = calendar ?? closable[0].id;
    closeForm.elements.start.value = start.slice(0, 16);
    closeForm.elements.end.value = end.slice(0, 16);
    closeForm.elements.reason.value = "";
    closing.showModal();
  }

  if (closing) {
    closeForm.elements.calendar.replaceChildren(
      ...closable.map(({ id, title }) => new Option(title, id)),
    );
    closeForm.addEventListener("submit", (event) => {
      event.preventDefault();
      send(closing, closeForm, config.urls.close);
    });
    document.querySelector("[data-close]").addEventListener("click", () => {
      const day = byId("diary-date").value;
      askToClose({ start: `${day}T12:00`, end: `${day}T13:00` });
    });
  }

  // --- booking --------------------------------------------------------------------------------

  const booking = byId("diary-book");
  const bookForm = booking && part(booking, "form");

  // Of a time that was chosen with the mouse: whether to book or to close it.
  function chooseFor(free) {
    if (!booking) return mayClose(free.calendar) ? askToClose(free) : ec.unselect();
    if (!mayClose(free.calendar)) return askToBook(free);
    const dialog = byId("diary-free");
    part(dialog, "h2").textContent = calendars.get(free.calendar)?.title ?? words.free;
    part(dialog, ".diary-when").textContent = period(free);
    for (const button of dialog.querySelectorAll("[data-choose]")) {
      button.onclick = () => {
        dialog.close();
        (button.dataset.choose === "book" ? askToBook : askToClose)(free);
      };
    }
    dialog.showModal();
  }

  function askToBook({ calendar, start, service }) {
    const offered = config.services.filter((each) =>
      service ? each.id === service : !each.in_slots && (!calendar || each.calendar === calendar),
    );
    bookForm.reset();
    bookForm.elements.service.replaceChildren(
      ...offered.map(({ id, title, calendar: on }) => {
        const where = several ? ` (${calendars.get(on).title})` : "";
        return new Option(`${title}${where}`, id);
      }),
    );
    bookForm.elements.start.value = start.slice(0, 16);
    showRefusal(booking, {});
    booking.showModal();
    bookForm.elements[offered.length > 1 ? "service" : "attendee_name"].focus();
  }

  if (booking) {
    bookForm.addEventListener("submit", (event) => {
      event.preventDefault();
      send(booking, bookForm, config.urls.book);
    });
    document.querySelector("[data-book]").addEventListener("click", () => {
      askToBook({ start: `${byId("diary-date").value}T12:00` });
    });
  }

  const reopening = byId("diary-reopen");

  function askToReopen(entry) {
    const form = part(reopening, "form");
    showRefusal(reopening, {});
    form.elements.calendar.value = entry.calendar;
    form.elements.time_off.value = entry.id;
    part(reopening, ".diary-what").textContent = [calendars.get(entry.calendar)?.title, entry.reason]
      .filter(Boolean)
      .join(" · ");
    part(reopening, ".diary-when").textContent = period(entry);
    reopening.showModal();
  }

  reopening?.addEventListener("submit", (event) => {
    event.preventDefault();
    send(reopening, event.target, config.urls.reopen);
  });

  // --- the bar ------------------------------------------------------------------------------

  for (const button of document.querySelectorAll("[data-go]")) {
    button.addEventListener("click", () => {
      if (button.dataset.go === "today") ec.setOption("date", today());
      else ec[button.dataset.go]();
    });
  }

  function today() {
    const [sign, hours, minutes] = config.offset.match(/([+-])|\d+/g);
    const shift = (sign === "-" ? -1 : 1) * (Number(hours) * 60 + Number(minutes));
    return wallOf(new Date(Date.now() + shift * 60000)).slice(0, 10);
  }

  byId("diary-date").addEventListener("change", ({ target }) => {
    if (target.value && target.validity.valid) ec.setOption("date", target.value);
  });

  for (const button of document.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => {
      view = button.dataset.view;
      ec.setOption("view", viewName());
      showTitle();
    });
  }
})();
