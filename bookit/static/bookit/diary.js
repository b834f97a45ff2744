/* The diary: draws what /admin/diary/sheet/ returns, and sends the changes that users make. Every
   time is a wall-clock time in the zone of the page, without an offset. Only the server turns times
   into instants. */
"use strict";

(() => {
  const config = JSON.parse(document.getElementById("diary-config").textContent);
  const words = config.words;
  const byId = (id) => document.getElementById(id);
  // The day comes before the month, in all languages. In English, this needs the locale en-GB.
  const lang = document.documentElement.lang;
  const locale = lang.startsWith("en") ? "en-GB" : lang || undefined;
  const calendars = new Map(config.calendars.map((each) => [each.id, each]));
  const several = config.calendars.length > 1;
  const narrow = matchMedia("(max-width: 700px)");

  // How often an open diary asks the server whether something has changed.
  const REFRESH_MS = 15000;
  // With more calendars than this, a week has one row for each calendar instead of many columns. On a
  // narrow screen, a week of two calendars has rows, too.
  const MOST_IN_COLUMNS = 2;
  // A click on free time selects a period of this length, in seconds.
  const CLICKED = 1800;

  if (!config.calendars.length) return;

  // --- wall-clock times ---------------------------------------------------------------------

  // Times are read and written as if they were in UTC, so that a change of the clocks in the
  // browser's own zone cannot shift them.
  const dateOf = (wall) => new Date(`${wall}Z`);
  const wallOf = (date) => date.toISOString().slice(0, 19);
  const plus = (wall, seconds) => wallOf(new Date(dateOf(wall).getTime() + seconds * 1000));
  const formatter = (options) => new Intl.DateTimeFormat(locale, { timeZone: "UTC", ...options });
  const clock = formatter({ hour: "2-digit", minute: "2-digit", hourCycle: "h23" });
  const longDay = formatter({ weekday: "long", day: "numeric", month: "long", year: "numeric" });
  const dated = formatter({ weekday: "short", day: "numeric", month: "short", year: "numeric" });
  // The server writes these dates without a comma.
  const shortDay = { format: (date) => dated.format(date).replace(",", "") };
  const someDays = formatter({ day: "numeric", month: "short", year: "numeric" });
  const month = formatter({ month: "long", year: "numeric" });

  const minutesOf = (entry) => (dateOf(entry.end) - dateOf(entry.start)) / 60000;
  const isMidnight = (wall) => wall.slice(11, 16) === "00:00";

  function period(entry) {
    const [start, end] = [dateOf(entry.start), dateOf(entry.end)];
    const isOneDay = plus(entry.end, -1).slice(0, 10) === entry.start.slice(0, 10);
    const last = isOneDay ? "" : `${shortDay.format(end)}, `;
    return `${shortDay.format(start)}, ${clock.format(start)}–${last}${clock.format(end)}`;
  }

  function fill(text, values) {
    return text.replace(/%\((\w+)\)s/g, (_, name) => values[name]);
  }

  function element(tag, className, text = "") {
    const made = document.createElement(tag);
    made.className = className;
    made.textContent = text;
    return made;
  }

  // --- what the sheet shows -----------------------------------------------------------------

  function background(entry, kind, lines) {
    return {
      start: entry.start,
      end: entry.end,
      resourceIds: [entry.calendar],
      display: "background",
      classNames: [`diary-${kind}`],
      extendedProps: { kind, lines, entry },
    };
  }

  // Return the events that show a closed time, a buffer or time off in the background. If the cells
  // of a view are days, the background shows only whole days.
  function shade(entry, kind, lines = []) {
    return hasDayCells() ? wholeDays(entry, kind) : [background(entry, kind, lines)];
  }

  function wholeDays(entry, kind) {
    const first = isMidnight(entry.start) ? entry.start : plus(`${entry.start.slice(0, 10)}T00:00`, 86400);
    const until = `${entry.end.slice(0, 10)}T00:00:00`;
    if (first >= until) return [];
    return [{ ...background({ ...entry, start: first, end: until }, kind, []), allDay: true }];
  }

  const hasDayCells = () => ["dayGridMonth", "resourceTimelineMonth"].includes(viewName());

  function offEvents(entry) {
    const lines = [words.off, entry.reason];
    const drawn = shade(entry, "off", lines);
    if (!hasDayCells() && view !== "list") return drawn;
    // Views with day cells, and the list, also show time off as an entry, like a booking.
    return [...drawn, { ...background(entry, "off", lines), display: "auto", startEditable: false }];
  }

  function bookingEvent(entry) {
    return {
      id: entry.id,
      start: entry.start,
      end: entry.end,
      resourceIds: [entry.calendar],
      classNames: ["diary-entry", `diary-${entry.status}`, `diary-id-${entry.id}`],
      startEditable: isMovable(entry),
      extendedProps: {
        kind: "booking",
        entry,
        lines: [entry.attendee, entry.service],
      },
    };
  }

  const isMovable = (entry) => entry.movable && Boolean(calendars.get(entry.calendar)?.movable);

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
      ...found.closed.flatMap((each) => shade(each, "closed")),
      ...found.buffers.flatMap((each) => shade(each, "buffer")),
      ...found.off.flatMap(offEvents),
      ...found.slots.map(slotEvent),
      ...found.bookings.map(bookingEvent),
    ];
  }

  // An entry consists of lines. In a grid of hours, only lines that fit as a whole are shown.
  function content({ event }) {
    const { kind, lines, entry } = event.extendedProps;
    if (!lines) return undefined; // EventCalendar's own event, for example the preview of a selection
    if (event.display === "background" && !lines.some(Boolean)) return { domNodes: [] };
    const isEntry = event.display !== "background";
    const head = element("span", "diary-line diary-head");
    // EventCalendar passes dates whose local parts are the wall-clock time.
    const [start, end] = [asUtc(event.start), asUtc(event.end)].map((each) => clock.format(each));
    const calendar = calendars.get(event.resourceIds[0]);
    if (kind === "booking") {
      const sign = element("span", "diary-sign");
      sign.setAttribute("aria-hidden", "true");
      head.append(sign);
    }
    if (isEntry) {
      // The hidden text says what the place and the colour of the entry show.
      const place = [entry.state, several && calendar?.title, shortDay.format(asUtc(event.start))];
      head.append(element("span", "visually-hidden", place.filter(Boolean).join(", ")), " ");
      const time = element("time", "diary-time", start);
      time.append(element("span", "diary-end", `–${end}`));
      head.append(time, " ");
    }
    const [first, ...others] = lines.filter(Boolean);
    head.append(element("span", "diary-name", first));
    const nodes = [head, ...others.map((line) => element("span", "diary-line", line))];
    if (several && ["month", "list"].includes(view)) {
      nodes.push(element("span", "diary-line diary-where", calendar?.title ?? ""));
    }
    if (kind === "booking" && view === "list") {
      const state = element("span", `state state-${entry.status}`, entry.state);
      state.setAttribute("aria-hidden", "true"); // The hidden text above contains it already.
      nodes.push(state);
    }
    // The tooltip has the whole text, because an entry may be too small for it.
    const all = [entry && period(entry), ...lines, entry?.state].filter(Boolean).join("\n");
    if (isEntry) nodes.forEach((node) => (node.title = all));
    if (kind === "off" && !isEntry && calendar?.closable) {
      const button = element("button", "diary-reopen", words.reopen);
      button.type = "button";
      // Otherwise, pressing the button would start a selection of time.
      button.addEventListener("pointerdown", (pressed) => pressed.stopPropagation());
      button.addEventListener("click", () => askToReopen(entry, button));
      nodes.push(button);
    }
    return { domNodes: nodes };
  }

  // --- views and days -----------------------------------------------------------------------

  let view = config.view || (several ? (narrow.matches ? "list" : "day") : narrow.matches ? "day" : "week");

  function viewName() {
    const rows = config.calendars.length > MOST_IN_COLUMNS || (several && narrow.matches);
    return {
      day: several ? "resourceTimeGridDay" : "timeGridDay",
      week: several ? (rows ? "resourceTimelineMonth" : "resourceTimeGridWeek") : "timeGridWeek",
      month: "dayGridMonth",
      list: "listWeek",
    }[view];
  }

  let shown = null; // the first day of the sheet, and the day after its last day
  let last = null; // the latest sheet that the server returned
  let hours = ""; // the hours at which the drawn days begin and end
  let etag = ""; // of the latest sheet; empty if the next sheet must be drawn even if it is unchanged
  let asking = null; // the `AbortController` of the latest request for a sheet

  const ec = EventCalendar.create(byId("diary"), {
    view: viewName(),
    date: config.date,
    timeZone: config.offset,
    locale,
    firstDay: 1,
    headerToolbar: { start: "", center: "", end: "" },
    buttonText: (text) => ({ ...text, close: words.dismiss }),
    resources: config.calendars.map(({ id, title }) => ({ id, title })),
    events: [],
    allDaySlot: false,
    nowIndicator: true,
    slotEventOverlap: false,
    slotDuration: "00:30",
    snapDuration: "00:15",
    slotHeight: 28,
    scrollTime: "08:00",
    dayMaxEvents: true,
    moreLinkContent: ({ num }) => fill(words.hidden, { count: num }),
    noEventsContent: words.empty,
    datesAboveResources: true,
    displayEventEnd: true,
    slotLabelFormat: (time) => clock.format(asUtc(time)),
    dayHeaderFormat: { weekday: "short", day: "numeric" },
    listDayFormat: { weekday: "long", day: "numeric", month: "long" },
    listDaySideFormat: () => "",
    columnWidth: `minmax(${several ? 6.5 : 4.5}rem, 1fr)`,
    longPressDelay: 400,
    views: {
      dayGridMonth: { dayHeaderFormat: { weekday: "short" }, height: narrow.matches ? "34rem" : "48rem" },
      // Seven days from the chosen day, so that the list on a phone begins with today.
      listWeek: { duration: { days: 7 } },
      // For a week of many calendars: EventCalendar's month, shortened. Each cell is a day, because
      // the hours of a week would be far too wide.
      resourceTimelineMonth: {
        duration: { weeks: 1 },
        slotDuration: { days: 1 },
        columnWidth: "minmax(6.5rem, 1fr)",
        dayHeaderFormat: { weekday: "short", day: "numeric" },
      },
    },
    editable: false,
    eventStartEditable: false,
    eventDurationEditable: false,
    selectable: Boolean(byId("diary-free") || byId("diary-close")),
    eventContent: content,
    eventAllUpdated: correctRoles,
    eventClick: ({ event, el }) => open(event.extendedProps, el),
    // A booking stays in its calendar, because its service belongs to that calendar.
    dragConstraint: ({ newResource }) => newResource === undefined,
    eventDragStart: () => report(""),
    eventDrop: ({ event, delta, revert }) => {
      const entry = event.extendedProps.entry;
      const to = plus(entry.start, delta.seconds + delta.days * 86400);
      if (to === entry.start) return;
      askToMove(entry, to, revert);
    },
    select: ({ startStr, endStr, resource, jsEvent }) => {
      chooseFor({ calendar: calendarOf(resource), start: startStr, end: endStr }, pointOf(jsEvent));
    },
    dateClick: ({ dateStr, allDay, resource, jsEvent }) => {
      if (allDay || view === "list") return show("day", dateStr.slice(0, 10));
      const end = plus(dateStr, CLICKED);
      chooseFor({ calendar: calendarOf(resource), start: dateStr, end }, pointOf(jsEvent));
    },
    datesSet: ({ start, end }) => {
      // EventCalendar also calls this for the same days, for example after a change of the hours.
      const days = { first: dayOf(start), until: dayOf(end) };
      const isNew = days.first !== shown?.first || days.until !== shown?.until;
      shown = days;
      // The first call may come before this script has run to its end.
      queueMicrotask(isNew ? load : showTitle);
    },
  });

  // EventCalendar gives its elements the roles of a table, but puts the entries outside its cells.
  // Remove the roles. The hidden text of each entry names its day and its calendar.
  function correctRoles() {
    const parts = "[role=table], [role=rowgroup], [role=row], [role=cell], [role$=header]";
    for (const node of document.querySelectorAll(`#diary :is(${parts})`)) {
      ["role", "aria-colindex", "aria-rowindex"].forEach((name) => node.removeAttribute(name));
    }
    // The diary can be scrolled by keyboard only while the diary or an entry has the focus. Let the
    // diary take the focus, because there may be no entry.
    document.querySelector("#diary .ec-main")?.setAttribute("tabindex", "0");
  }

  const calendarOf = (resource) => resource?.id ?? (several ? undefined : config.calendars[0]?.id);

  function pointOf({ clientX, clientY }) {
    return { left: clientX, right: clientX, top: clientY, bottom: clientY };
  }

  function asUtc(date) {
    return new Date(
      Date.UTC(date.getFullYear(), date.getMonth(), date.getDate(), date.getHours(), date.getMinutes()),
    );
  }

  function dayOf(date) {
    return wallOf(asUtc(date)).slice(0, 10);
  }

  const query = () => new URLSearchParams(new FormData(byId("diary-choice")));

  function showTitle() {
    const day = dateOf(`${dayOf(ec.getOption("date"))}T00:00`);
    const [first, final] = [dateOf(`${shown.first}T00:00`), dateOf(plus(`${shown.until}T00:00`, -86400))];
    byId("diary-title").textContent =
      { day: () => longDay.format(day), month: () => month.format(day) }[view]?.() ??
      someDays.formatRange(first, final);
    byId("diary-date").value = wallOf(day).slice(0, 10);
    for (const button of document.querySelectorAll("[data-view]")) {
      button.setAttribute("aria-pressed", String(button.dataset.view === view));
    }
    const form = byId("diary-choice");
    form.elements.view.value = view;
    form.elements.date.value = byId("diary-date").value;
    history.replaceState(null, "", `?${query()}`);
    const book = document.querySelector("[data-book]");
    if (book) book.href = bookingPage({ start: proposedStart() });
  }

  // Return noon of the day that is shown, or of today if that day is over.
  function proposedStart() {
    const day = byId("diary-date").value;
    return `${day > today() ? day : today()}T12:00`;
  }

  function bookingPage({ start, service = "" }) {
    const asked = { start: start.slice(0, 16), service, zone: config.zone, diary: query() };
    return `${config.urls.book}?${new URLSearchParams(asked)}`;
  }

  // --- reading ------------------------------------------------------------------------------

  async function load() {
    etag = "";
    showTitle();
    byId("diary").setAttribute("aria-busy", "true");
    await refresh();
  }

  async function refresh() {
    const query = new URLSearchParams({ ...shown, zone: config.zone });
    for (const id of calendars.keys()) query.append("calendar", id);
    // A late response to an earlier request must not replace what is shown.
    asking?.abort();
    asking = new AbortController();
    const { signal } = asking;
    try {
      const response = await fetch(`${config.urls.sheet}?${query}`, {
        headers: etag ? { "If-None-Match": etag } : {},
        signal,
      });
      if (response.status === 304) return showNoteOn(last);
      const found = await read(response);
      if (!response.ok) return say(found.message);
      etag = response.headers.get("ETag") ?? "";
      draw(found);
    } catch (error) {
      if (error.name !== "AbortError") say(error.message === words.signed_out ? error.message : words.failed);
    }
  }

  async function read(response) {
    // A user who is signed out is redirected to the sign-in page.
    if (response.redirected) throw new Error(words.signed_out);
    return response.json();
  }

  function draw(found) {
    last = found;
    const focused = document.activeElement?.closest?.(".diary-entry");
    const mark = [...(focused?.classList ?? [])].find((name) => name.startsWith("diary-id-"));
    const [opens, closes] = hoursOf(found);
    if (hours !== `${opens}-${closes}`) {
      hours = `${opens}-${closes}`;
      ec.setOption("slotMinTime", `${opens}:00`);
      ec.setOption("slotMaxTime", `${closes}:00`);
    }
    // Make the rows high enough for the shortest entry to show a line.
    const shortest = Math.min(60, ...[...found.bookings, ...found.slots].map(minutesOf));
    ec.setOption("slotHeight", shortest < 20 ? 44 : shortest < 30 ? 36 : 28);
    ec.setOption("events", eventsOf(found));
    byId("diary").setAttribute("aria-busy", "false");
    showNoteOn(found);
    requestAnimationFrame(correctRoles);
    if (mark) requestAnimationFrame(() => document.querySelector(`#diary .${mark}`)?.focus());
  }

  // Return the full hours at which a drawn day begins and ends: the opening hours, extended to
  // bookings and slots outside of them. If one of these ends on a later day, whole days are drawn.
  function hoursOf(found) {
    let [opens, closes] = [found.opens, found.closes];
    for (const { start, end } of [...found.bookings, ...found.slots]) {
      const final = plus(end, -1);
      if (final.slice(0, 10) !== start.slice(0, 10)) return [0, 24];
      opens = Math.min(opens, Number(start.slice(11, 13)));
      closes = Math.max(closes, Number(final.slice(11, 13)) + 1);
    }
    return [opens, closes];
  }

  function showNoteOn(found) {
    // The list itself says that it is empty.
    const isEmpty = view !== "list" && !found.bookings.length && !found.slots.length;
    say(found.more ? words.more : isEmpty ? words.empty : "");
  }

  // Show a note about the sheet, or about why it could not be loaded. An unchanged note is not written
  // again, because screen readers would repeat it.
  function say(text) {
    const note = byId("diary-note");
    if (note.textContent !== text) note.textContent = text;
  }

  // Show the result of a change. It stays until the user dismisses it or does something else.
  function report(text, links = []) {
    const status = byId("diary-status");
    if (!text) return status.replaceChildren();
    const button = element("button", "diary-dismiss", "×");
    button.type = "button";
    button.setAttribute("aria-label", words.dismiss);
    button.addEventListener("click", () => report(""));
    const parts = links.map(({ url, label }) => {
      const link = element("a", "", label);
      link.href = url;
      return link;
    });
    const said = element("div", "diary-said");
    said.append(element("span", "", text), ...parts, button);
    status.replaceChildren(said);
  }

  function refreshIfIdle() {
    const busy = document.hidden || document.querySelector("dialog[open], .ec-preview");
    if (!busy && shown) refresh();
  }

  setInterval(refreshIfIdle, REFRESH_MS);
  // A user who comes back to the page does not have to wait for the next interval.
  document.addEventListener("visibilitychange", refreshIfIdle);

  // --- dialogs ------------------------------------------------------------------------------

  const anchors = new WeakMap();

  // Show a dialog beside an entry, a button or a point. On a narrow screen, it is at the bottom.
  function showNear(dialog, anchor) {
    report("");
    if (!dialog.open) dialog.showModal();
    anchors.set(dialog, anchor);
    place(dialog);
  }

  function place(dialog) {
    const { style } = dialog;
    const anchor = anchors.get(dialog);
    if (!anchor || narrow.matches) {
      ["margin", "left", "top"].forEach((name) => style.removeProperty(name));
      return;
    }
    const { width, height } = dialog.getBoundingClientRect();
    const gap = 8;
    const fits = anchor.right + gap + width <= innerWidth - gap;
    const left = fits ? anchor.right + gap : Math.max(gap, anchor.left - gap - width);
    const top = Math.max(gap, Math.min(anchor.top, innerHeight - height - gap));
    style.margin = "0";
    style.left = `${left}px`;
    style.top = `${top}px`;
  }

  for (const dialog of document.querySelectorAll(".diary-dialog")) {
    dialog.addEventListener("click", ({ target }) => {
      if (target === dialog || target.closest("[data-dismiss]")) dialog.close();
    });
    dialog.addEventListener("close", () => {
      ec.unselect();
      // While the dialog was open, the diary was not refreshed.
      refreshIfIdle();
    });
  }

  const part = (dialog, name) => dialog.querySelector(name);
  const rectOf = (node) => node.getBoundingClientRect();

  const inZone = (time) => `${period(time)} (${config.zone})`;

  const opened = byId("diary-booking");
  const openedForm = part(opened, "form");

  function open({ kind, entry }, el) {
    if (kind === "off") return calendars.get(entry.calendar)?.closable && askToReopen(entry, el);
    if (kind !== "booking" && kind !== "slot") return;
    const isBooking = kind === "booking";
    const calendar = calendars.get(entry.calendar);
    showRefusal(opened, {});
    part(opened, "h2").textContent = isBooking ? entry.attendee : entry.service;
    const badge = part(opened, ".state");
    badge.className = `state state-${entry.status}`;
    badge.textContent = entry.state ?? "";
    part(opened, ".diary-state").hidden = !isBooking;
    const what = isBooking
      ? [entry.service]
      : [fill(words.taken, entry), entry.pending ? fill(words.pending, { count: entry.pending }) : ""];
    part(opened, ".diary-what").textContent = [...what, calendar?.title].filter(Boolean).join(" · ");
    part(opened, ".diary-when").textContent = inZone(entry);
    const phone = part(opened, ".diary-phone a");
    phone.textContent = entry.phone ?? "";
    phone.href = `tel:${(entry.phone ?? "").replace(/[^+\d]/g, "")}`;
    part(opened, ".diary-phone").hidden = !entry.phone;
    part(opened, "[data-open]").href = config.urls[kind].replace("ID", entry.id);
    openedForm.elements.booking.value = entry.id;
    openedForm.elements.version.value = entry.version ?? ""; // slots have none
    part(opened, "[data-confirm]").hidden = !(entry.status === "pending" && isMovable(entry));
    const button = part(opened, "[data-move]");
    button.hidden = !isBooking || !isMovable(entry);
    button.onclick = () => {
      opened.close();
      askToMove(entry, entry.start);
    };
    const seat = part(opened, "[data-seat]");
    if (seat) {
      seat.hidden = isBooking || entry.taken >= entry.capacity;
      if (!isBooking) seat.href = bookingPage({ start: entry.start, service: entry.service_id });
    }
    showNear(opened, rectOf(el));
    part(opened, "[data-open]").focus();
  }

  openedForm.addEventListener("submit", (event) => {
    event.preventDefault();
    send(opened, openedForm, config.urls.confirm);
  });

  const moving = byId("diary-move");
  const moveForm = part(moving, "form");
  let putBack = null; // puts a dragged booking back to where it was

  function askToMove(entry, start, revert = null) {
    putBack = revert;
    showRefusal(moving, {});
    moveForm.elements.booking.value = entry.id;
    moveForm.elements.version.value = entry.version;
    moveForm.elements.start.value = start.slice(0, 16);
    part(moving, ".diary-what").textContent = `${entry.attendee} · ${entry.service}`;
    part(moving, ".diary-when").textContent = period(entry);
    part(moving, ".diary-mailed").hidden = !entry.has_mailbox;
    // Wait until a dropped entry is drawn at its new place.
    requestAnimationFrame(() => {
      const drawn = document.querySelector(`#diary .diary-id-${entry.id}`);
      showNear(moving, drawn && rectOf(drawn));
      if (revert) part(moving, "[type=submit]").focus();
      else moveForm.elements.start.focus();
    });
  }

  moving.addEventListener("close", () => {
    putBack?.();
    putBack = null;
  });

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
      if (!response.ok) return refuse(dialog, form, found);
      putBack = null;
      etag = "";
      dialog.close();
      report(found.message, found.bookings);
    } catch (error) {
      showRefusal(dialog, { message: error.message === words.signed_out ? error.message : words.not_sent });
    } finally {
      buttons.forEach((button) => (button.disabled = false));
      place(dialog);
    }
  }

  function refuse(dialog, form, found) {
    showRefusal(dialog, found);
    etag = "";
    if (!found.version) return;
    // Somebody else has changed the booking, so show its current time. In the dialog of a move, the
    // user can send the form again. The dialog of a booking also shows other details, which may be
    // outdated. So hide its buttons that change the booking. To change the booking, the user opens
    // its page, or the dialog again.
    form.elements.version.value = found.version;
    // During an upgrade, a server of version 0.1.0 may respond, which calls the time `was`.
    const current = found.current ?? found.was;
    part(dialog, ".diary-when").textContent = dialog === moving ? period(current) : inZone(current);
    form.querySelectorAll("[data-confirm], [data-move]").forEach((button) => (button.hidden = true));
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

  function askToClose({ calendar, start, end }, anchor) {
    showRefusal(closing, {});
    closeForm.elements.calendar.value = calendar ?? closable[0].id;
    closeForm.elements.start.value = start.slice(0, 16);
    closeForm.elements.end.value = end.slice(0, 16);
    closeForm.elements.reason.value = "";
    showNear(closing, anchor);
    closeForm.elements.reason.focus();
  }

  if (closing) {
    closeForm.elements.calendar.replaceChildren(
      ...closable.map(({ id, title }) => new Option(title, id)),
    );
    closeForm.addEventListener("submit", (event) => {
      event.preventDefault();
      send(closing, closeForm, config.urls.close);
    });
    document.querySelector("[data-close]").addEventListener("click", ({ currentTarget }) => {
      const start = proposedStart();
      askToClose({ start, end: plus(`${start}:00`, 3600) }, rectOf(currentTarget));
    });
  }

  // --- booking --------------------------------------------------------------------------------

  const free = byId("diary-free");

  // Ask what to do with a time that the user selected: book a service, or close the time.
  function chooseFor(time, anchor) {
    if (!free) return mayClose(time.calendar) ? askToClose(time, anchor) : ec.unselect();
    const isOver = time.end <= now();
    const offered = config.services.filter(
      (each) => !isOver && !each.in_slots && (!time.calendar || each.calendar === time.calendar),
    );
    const title = calendars.get(time.calendar)?.title ?? words.free;
    part(free, "h2").textContent = title;
    part(free, ".diary-when").textContent = inZone(time);
    part(free, ".diary-none").textContent = isOver ? words.over : words.no_service;
    part(free, ".diary-none").hidden = offered.length > 0;
    part(free, ".diary-services").replaceChildren(
      ...offered.map(({ id, title, minutes }) => {
        const link = element("a", "diary-button", fill(words.book, { service: title }));
        link.href = bookingPage({ start: time.start, service: id });
        link.append(element("span", "diary-minutes", fill(words.minutes, { count: minutes })));
        const item = document.createElement("li");
        item.append(link);
        return item;
      }),
    );
    const button = part(free, "[data-close-selected]");
    button.hidden = !mayClose(time.calendar);
    button.onclick = () => {
      free.close();
      askToClose(time, anchor);
    };
    showNear(free, anchor);
  }

  const reopening = byId("diary-reopen");

  function askToReopen(entry, button) {
    const form = part(reopening, "form");
    showRefusal(reopening, {});
    form.elements.calendar.value = entry.calendar;
    form.elements.time_off.value = entry.id;
    part(reopening, ".diary-what").textContent = [calendars.get(entry.calendar)?.title, entry.reason]
      .filter(Boolean)
      .join(" · ");
    part(reopening, ".diary-when").textContent = period(entry);
    showNear(reopening, rectOf(button));
  }

  reopening?.addEventListener("submit", (event) => {
    event.preventDefault();
    send(reopening, event.target, config.urls.reopen);
  });

  // --- the bar ------------------------------------------------------------------------------

  function go(where) {
    report("");
    if (where === "today") ec.setOption("date", today());
    else ec[where]();
  }

  function show(name, day) {
    report("");
    view = name;
    if (day) ec.setOption("date", day);
    ec.setOption("view", viewName());
    if (last) draw(last);
    showTitle();
  }

  function now() {
    const [sign, hours, minutes] = config.offset.match(/([+-])|\d+/g);
    const shift = (sign === "-" ? -1 : 1) * (Number(hours) * 60 + Number(minutes));
    return wallOf(new Date(Date.now() + shift * 60000));
  }

  const today = () => now().slice(0, 10);

  byId("diary-date").addEventListener("change", ({ target }) => {
    if (target.value && target.validity.valid) ec.setOption("date", target.value);
  });

  for (const button of document.querySelectorAll("[data-go]")) {
    button.addEventListener("click", () => go(button.dataset.go));
  }
  for (const button of document.querySelectorAll("[data-view]")) {
    button.addEventListener("click", () => show(button.dataset.view));
  }

  // The keys work only while the diary or its bars have the focus, because assistive technologies use
  // keys too.
  const shortcuts = new Map(
    [...document.querySelectorAll("[aria-keyshortcuts]")].map((button) => [
      button.getAttribute("aria-keyshortcuts").toLowerCase(),
      button,
    ]),
  );
  byId("content-main").addEventListener("keydown", (event) => {
    const isText = event.target.matches("input, select, textarea");
    if (isText || event.ctrlKey || event.metaKey || event.altKey) return;
    shortcuts.get(event.key.toLowerCase())?.click();
  });

  // --- the choice of calendars ----------------------------------------------------------------

  const choice = document.querySelector(".diary-choice");
  const boxes = [...choice.querySelectorAll("[name=calendar]")];
  const listed = () => boxes.filter((box) => !box.closest("label").hidden);
  part(choice, ".diary-filter").hidden = boxes.length < 6;
  byId("diary-filter").addEventListener("input", ({ target }) => {
    const text = target.value.trim().toLocaleLowerCase(locale);
    for (const box of boxes) {
      const label = box.closest("label");
      label.hidden = !label.textContent.toLocaleLowerCase(locale).includes(text);
    }
  });
  // Otherwise, the Enter key in the filter would send the form.
  byId("diary-filter").addEventListener("keydown", (event) => event.key === "Enter" && event.preventDefault());
  part(choice, "[data-all]").addEventListener("click", () => {
    listed().forEach((box) => (box.checked = true));
    checkChoice();
  });
  part(choice, "[data-none]").addEventListener("click", () => {
    listed().forEach((box) => (box.checked = false));
    checkChoice();
  });
  choice.addEventListener("change", checkChoice);

  function checkChoice() {
    const count = boxes.filter((box) => box.checked).length;
    part(choice, "[type=submit]").disabled = count < 1 || count > config.most;
  }

  // The choice closes like a menu: after a click elsewhere, or with Escape.
  document.addEventListener("click", ({ target }) => {
    if (!choice.contains(target)) choice.open = false;
  });
  choice.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    choice.open = false;
    part(choice, "summary").focus();
  });
})();
