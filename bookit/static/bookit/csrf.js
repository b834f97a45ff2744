/* Signing in changes the CSRF token of the browser. If a user is signed out, and signs in again in
   another tab, the forms of this tab would still send the old token. They would be refused, and
   everything that was entered would be lost. So the forms get the token of the cookie, not only on
   `submit`: scripts can send a form without that event. */
"use strict";

for (const happened of ["focusin", "change", "submit"]) {
  document.addEventListener(happened, () => {
    const [, token] = document.cookie.match(/(?:^|; )csrftoken=([^;]+)/) ?? [];
    for (const input of document.querySelectorAll("[name=csrfmiddlewaretoken]")) {
      input.value = token ?? input.value;
    }
  }, true);
}
