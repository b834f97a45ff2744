// The page of imports: sends a file, shows the progress, and then the result. Without this script,
// the page works for files with few lines.
"use strict";

(() => {
  const page = document.querySelector(".import");
  const steps = document.getElementById("import-steps");
  const card = page.querySelector(".import-progress");
  const [status, bar] = [card.querySelector("[role=status]"), card.querySelector("progress")];
  const waiting = status.textContent;
  const words = page.dataset;

  const show = (html) => {
    steps.innerHTML = html;
    window.scrollTo({ top: 0 });
  };

  /** Show a text above the form. */
  const refuse = (text) => {
    steps.querySelector(".errornote")?.remove();
    const note = document.createElement("p");
    note.className = "errornote";
    note.setAttribute("role", "alert");
    note.textContent = text;
    steps.querySelector("h2").after(note);
  };

  /** Show the progress or the result that a line contains. Return true if it is the result. */
  const showLine = (line) => {
    const news = JSON.parse(line);
    if (news.html !== undefined) {
      show(news.html);
      return true;
    }
    [bar.max, bar.value] = [news.total, news.done];
    status.textContent = words.done
      .replace("%(done)s", news.done.toLocaleString(document.documentElement.lang))
      .replace("%(total)s", news.total.toLocaleString(document.documentElement.lang));
    return false;
  };

  /** Read the response line by line, and return whether it had a result. */
  const follow = async (response) => {
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let [text, isDone] = ["", false];
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return isDone;
      const lines = (text + value).split("\n");
      text = lines.pop();
      for (const line of lines) isDone = showLine(line) || isDone;
    }
  };

  const send = async (form, button) => {
    const body = new FormData(form, button);
    steps.hidden = true;
    card.hidden = false;
    status.textContent = waiting;
    bar.removeAttribute("value");
    let text = words.lost;
    try {
      const headers = { Accept: "application/x-ndjson" };
      const response = await fetch(form.action, { method: "POST", body, headers });
      if (response.status === 413) text = words.large;
      // The server redirects to the page for signing in if the session has ended.
      else if (!response.ok || response.redirected) text = words.refused;
      else if (await follow(response)) text = "";
    } catch {
      // The connection failed, or the response is not what this script expects.
    }
    card.hidden = true;
    steps.hidden = false;
    if (text) refuse(text);
    else steps.focus();
  };

  steps.addEventListener("submit", (event) => {
    event.preventDefault();
    const file = event.target.querySelector("input[type=file]")?.files[0];
    if (file && file.size > Number(words.limit)) refuse(words.large);
    else send(event.target, event.submitter);
  });
})();
