// What screen readers are told of the editor and of the upload, which leave it out themselves.
new MutationObserver(() => {
  for (const one of document.querySelectorAll(".cm-content:not([aria-label])")) one.setAttribute("aria-label", "YAML");
  for (const files of document.querySelectorAll(".q-uploader__input:not([aria-label])")) {
    files.setAttribute("aria-label", "DICOM files to try");
    files.removeAttribute("tabindex");
    files.closest("a").removeAttribute("role");
    files.closest("a").removeAttribute("tabindex");
  }
}).observe(document, { subtree: true, childList: true });

// Faults at their lines in an editor, where the text is still the one that was looked at. Only marks travel: what a
// person types meanwhile stays.
window.markFaults = (id, said, marks) => {
  const one = getElement(id);
  if (one?.editor?.state.doc.toString() === said) one.setDecorations(marks);
};
