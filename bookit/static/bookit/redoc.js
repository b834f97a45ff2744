// Replaces images whose address begins with `https:`, as those from other hosts do, with an empty
// image. The logo in Redoc's menu is such an image: a browser without internet access would wait for
// it.
"use strict";

const nothing = "data:image/svg+xml,%3Csvg xmlns='http%3A//www.w3.org/2000/svg'/%3E";
const replaced = (address) => (String(address).startsWith("https:") ? nothing : address);
const { setAttribute } = Element.prototype;
Element.prototype.setAttribute = function (name, value) {
  setAttribute.call(this, name, name === "src" ? replaced(value) : value);
};
const src = Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, "src");
Object.defineProperty(HTMLImageElement.prototype, "src", {
  ...src,
  set(value) {
    src.set.call(this, replaced(value));
  },
});
